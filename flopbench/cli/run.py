"""`flopbench run`."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flopbench.cli.axes import Values, with_axes
from flopbench.cli.console import echo, make_console
from flopbench.errors import ExitCode, FlopbenchError

_UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `5m`, `1.5h`.

    Raises:
        FlopbenchError: not a duration.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smh]?)", text.strip())
    if not match or float(match.group(1)) == 0:
        raise FlopbenchError(f"--budget {text!r} is not a duration; write 90s, 5m or 1.5h")
    return float(match.group(1)) * _UNITS[match.group(2)]


def parse_shard(text: str) -> tuple[int, int]:
    """`2/8`: the second of eight parts.

    Raises:
        FlopbenchError: not of that form.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if not match:
        raise FlopbenchError(f"--shard {text!r} is not of the form i/n, e.g. 1/4")
    return int(match.group(1)), int(match.group(2))


@with_axes(several=True)
def run(
    axes: Values,
    suite: Annotated[
        str | None,
        typer.Option(help="Name of a suite (see `flopbench list`) or a TOML file; vit by default."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The suite's small profile.")] = False,
    budget: Annotated[str | None, typer.Option(help="Time for the whole run, e.g. 5m.")] = None,
    pair: Annotated[
        list[str] | None, typer.Option(help="Only this pair, e.g. vit_s16.flop; repeatable.")
    ] = None,
    replicates: Annotated[int | None, typer.Option(help="Fresh processes a cell.")] = None,
    precision: Annotated[
        float | None, typer.Option(help="Relative half-width at which a cell is done.")
    ] = None,
    cell_seconds: Annotated[float | None, typer.Option(help="Seconds of sampling a cell, at most.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads that a CPU computes with; by default as many as torch takes.")
    ] = None,
    shard: Annotated[str | None, typer.Option(help="Measure part i of n, e.g. 1/4.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run folder.")] = None,
    results: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("results"),
    reports: Annotated[Path, typer.Option(help="Where reports go.")] = Path("reports"),
    format_: Annotated[str, typer.Option("--format", help="table, json, csv or markdown.")] = "table",
) -> None:
    """Measure a suite and report: how much of the saved FLOPs becomes time."""

    from flopbench.report import FORMATS
    from flopbench.runner.progress import progress_for
    from flopbench.runner.sweep import sweep, use_threads

    if format_ not in FORMATS:
        raise FlopbenchError(f"--format {format_!r}: choose one of {', '.join(FORMATS)}")
    changes: dict[str, Any] = {
        "pairs": tuple(pair or ()),
        **axes,
        "replicates": replicates,
        "precision": precision,
        "cell_seconds": cell_seconds,
        "budget_seconds": parse_duration(budget) if budget is not None else None,
    }
    if threads is not None:
        use_threads(threads)
    # What the user reads goes to stderr when stdout is for a pipe.
    console = make_console(stderr=format_ != "table")
    measured = _prepare(
        suite, device, quick, changes, parse_shard(shard) if shard is not None else None, resume, results
    )
    interrupted = False
    try:
        with progress_for(console) as progress:
            sweep(measured, progress)
    except KeyboardInterrupt:
        interrupted = True
        console.print(f"interrupted; every finished cell is in {measured.path}", highlight=False)
    _show(measured, reports, format_, console)
    if interrupted:
        console.print(f"continue with: flopbench run --resume {measured.path}")
        raise typer.Exit(ExitCode.INTERRUPTED)


def _prepare(
    suite_name: str | None,
    device: str | None,
    quick: bool,
    changes: dict[str, Any],
    shard: tuple[int, int] | None,
    resume: Path | None,
    results: Path,
) -> Any:
    """The run to measure: a new one, or the one to resume. Nothing is written before all input is checked."""
    from flopbench.results import Run
    from flopbench.runner.sweep import (
        check_cells,
        check_resumable,
        new_run,
        probe_environment,
        recorded_command,
        shard_of,
    )
    from flopbench.suites import load_suite, override

    if device not in (None, "cpu", "cuda"):
        raise FlopbenchError(f"--device {device!r}: choose cpu or cuda")
    if resume is not None:
        run = Run.open(resume)
        given = [name for name, value in changes.items() if value not in (None, ())]
        if given or shard:
            raise FlopbenchError(
                f"--resume takes the run as it was begun; leave out {', '.join(given or ['shard'])}"
            )
        suite = load_suite(suite_name) if suite_name else None
        check_resumable(run, suite, probe_environment(run.info.environment.device))
        return run
    suite = load_suite(suite_name or "vit")
    for kind in (device,) if device else suite.profiles:
        profile = override(suite.profile(kind, quick=quick), **changes)  # pyright: ignore[reportArgumentType]
        shard_of(list(profile.cells(kind)), shard)  # pyright: ignore[reportArgumentType]
    environment = probe_environment(device)
    profile = override(suite.profile(environment.device, quick=quick), **changes)
    check_cells(profile.cells(environment.device))
    command = recorded_command(sys.argv[1:])
    return new_run(suite, profile, environment, results, quick=quick, command=command, shard=shard)


def _show(run: Any, reports: Path, format_: str, console: Any) -> None:
    from flopbench.report.render import render_report
    from flopbench.report.tables import format_frame, summary_table
    from flopbench.results import to_frame

    frame = to_frame([run])
    if format_ == "table":
        console.print(summary_table(frame))
    else:
        echo(format_frame(frame, format_))
    files = render_report([run], reports)
    console.print(f"raw data: {run.path}", soft_wrap=True)
    console.print(f"report:   {files.markdown}", soft_wrap=True)
    for answer in files.answers:
        console.print(answer.in_short, markup=False)
