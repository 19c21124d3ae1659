"""`flopbench profile PAIR`, `flopbench profile predict` and `flopbench profile check`."""

from pathlib import Path
from typing import Annotated

import typer

from flopbench.cli.axes import Values, cells_of, one_each, with_axes
from flopbench.cli.console import make_console
from flopbench.modes import DeviceKind

PairName = Annotated[str, typer.Argument(metavar="PAIR", help="E.g. vit_s16.flop, or CANDIDATE@BASELINE.")]


@with_axes(several=False)
def profile(
    pair: PairName,
    axes: Values,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=1800, help="For timing the pair, and for each profile.")
    ] = 10.0,
    calibration: Annotated[
        Path | None, typer.Option(help="Take the peaks from this calibration.json instead of measuring them.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Store the profile beside this run too.")] = None,
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("reports"),
    trace: Annotated[
        Path | None, typer.Option(help="Write a Chrome trace a model to FILE-role.json.")
    ] = None,
    stacks: Annotated[Path | None, typer.Option(help="Write folded stacks for a flame graph.")] = None,
) -> None:
    """Show where a pair's time goes, what the device allows, and what is missing."""
    import flopbench
    from flopbench.results import Run

    beside = Run.open(run) if run else None
    console = make_console()
    profiled = flopbench.profile(
        pair,
        device=device,
        seconds=seconds,
        calibration=calibration,
        trace=trace,
        stacks=stacks,
        progress=lambda line: console.print(line, markup=False),
        **one_each(axes),
    )
    console.print(profiled)
    if beside is not None:
        profiled.save(beside.path)
    console.print(f"report: {profiled.report(out)}", soft_wrap=True, markup=False)


@with_axes(several=True)
def predict(
    pair: PairName,
    calibration: Annotated[Path, typer.Option(help="The calibration.json whose peaks are believed.")],
    axes: Values,
    device: Annotated[
        DeviceKind, typer.Option(help="cpu or cuda, where the calibration does not say.")
    ] = "cpu",
) -> None:
    """Predict a speed-up from the peaks of a device.

    Nothing is measured: the pair's MACs and bytes are counted.
    """
    from flopbench.profiling.predict import predict as predict_cell
    from flopbench.profiling.predict import prediction_table, read_calibration

    known = read_calibration(calibration)
    kind = known.environment.device if known.environment else device
    cells = cells_of(pair, kind, axes)
    predictions = [predict_cell(cell, known.peaks) for cell in cells]
    make_console().print(prediction_table(predictions))


def check(
    runs: Annotated[
        Path, typer.Argument(metavar="RUNS", help="Folder with run folders and calibrations, e.g. results.")
    ],
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("reports"),
) -> None:
    """Check predictions against measured runs.

    Every cell of two networks counts whose device has a calibration among the runs.
    """
    from flopbench.profiling.predict import (
        check_lines,
        check_prediction,
        checked_table,
        find_runs,
        write_check,
    )

    console = make_console()
    checked, left_out = check_prediction(find_runs(runs))
    console.print(checked_table(checked))
    for line in check_lines(checked, left_out):
        console.print(line, markup=False)
    console.print(f"report: {write_check(checked, left_out, out)}", soft_wrap=True, markup=False)
