"""`flopbench calibrate` and `flopbench merge`."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flopbench.cells import AXES
from flopbench.cli.axes import Values, with_axes
from flopbench.cli.console import echo, make_console
from flopbench.errors import FlopbenchError


@with_axes(several=True)
def calibrate(
    axes: Values,
    suite: Annotated[str, typer.Option(help="Suite whose baselines run against themselves.")] = "vit",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The suite's small profile.")] = False,
    pair: Annotated[list[str] | None, typer.Option(help="Only this pair's baseline; repeatable.")] = None,
    replicates: Annotated[int, typer.Option(help="Fresh processes a cell.")] = 3,
    cell_seconds: Annotated[float | None, typer.Option(help="Seconds of sampling a cell, at most.")] = None,
    results: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("results"),
) -> None:
    """Measure the noise floor (A/A) and the peaks of this machine."""
    from flopbench.regression.calibrate import a_a_profile, in_words
    from flopbench.regression.calibrate import calibrate as summarise
    from flopbench.report import text
    from flopbench.report.table import Column, Table, words
    from flopbench.runner.begin import new_run, recorded_command
    from flopbench.runner.progress import progress_for
    from flopbench.runner.sweep import check_cells, probe_environment, probe_peaks, sweep
    from flopbench.suites import load_suite, override

    variant = "quick" if quick else None
    loaded = load_suite(suite)
    environment = probe_environment(device)
    profile = override(
        loaded.profile(environment.device, variant),
        pairs=tuple(pair or ()),
        replicates=replicates,
        cell_seconds=cell_seconds,
        **axes,
    )
    profile = a_a_profile(profile).model_copy(update={"budget_seconds": None})
    check_cells(profile.cells(environment.device))
    command = recorded_command(sys.argv[1:])
    run = new_run(loaded, profile, environment, results, variant=variant, command=command, kind="calibration")
    console = make_console()
    peaks = probe_peaks(environment.device, profile.values(AXES["dtype"]))
    with progress_for(console) as progress:
        sweep(run, progress)
    calibration = summarise(run, peaks)

    columns = (words("cell"), Column("smallest visible change", write=partial(text.percent, decimals=1)))
    console.print(Table.of("Noise floor", columns, calibration.visible_change.items()))
    for dtype, rate in peaks.flops_per_second.items():
        console.print(f"matrix products in {dtype}: {rate / 1e12:.3g} TFLOP/s")
    console.print(f"copies: {peaks.copy_bytes_per_second / 1e9:.3g} GB/s")
    console.print(in_words(calibration, run.records()))
    console.print(f"calibration: {run.path / 'calibration.json'}", soft_wrap=True)


def merge(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one suite, from like machines.")],
    out: Annotated[Path, typer.Option(help="The new run folder.")],
) -> None:
    """Join the shards of one suite into one run."""
    from flopbench.results import Run, merge_runs
    from flopbench.runner.begin import RESUME_FIELDS

    if out.exists():
        raise FlopbenchError(f"{out} exists already; name a new folder for --out")
    merged = merge_runs([Run.open(path) for path in runs], out, RESUME_FIELDS)
    echo(f"{len(merged.records())} cells of {len(runs)} runs in {merged.path}")
