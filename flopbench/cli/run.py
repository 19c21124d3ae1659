"""`flopbench run`."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flopbench.cli.axes import Values, with_axes
from flopbench.cli.console import echo, make_console
from flopbench.cli.report import check_format, print_tables
from flopbench.errors import ExitCode, FlopbenchError, Interrupted

if TYPE_CHECKING:
    from flopbench.report.result import Result


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
    quick: Annotated[bool, typer.Option("--quick", help="The suite's small profile: a first look.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="The suite's long sweep: more of everything, and no budget.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Name the cells in the order of measuring, and measure none.")
    ] = False,
    budget: Annotated[str | None, typer.Option(help="Time for the whole run, e.g. 5m.")] = None,
    pair: Annotated[
        list[str] | None, typer.Option(help="Only this pair, e.g. vit_s16.flop; repeatable.")
    ] = None,
    replicates: Annotated[int | None, typer.Option(help="Fresh processes a cell.")] = None,
    precision: Annotated[
        float | None, typer.Option(help="Relative half-width at which a cell is done.")
    ] = None,
    cell_seconds: Annotated[float | None, typer.Option(help="Seconds of sampling a cell, at most.")] = None,
    serving: Annotated[
        bool,
        typer.Option("--serving", help="Latencies of single calls, load time and size on disk, too."),
    ] = False,
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

    from flopbench import api
    from flopbench.runner.begin import Request, device_kind, parse_duration, read_suite, recorded_command
    from flopbench.runner.progress import progress_for

    check_format(format_)
    if quick and full:
        raise FlopbenchError("--quick and --full exclude one another: choose one, or neither")
    kind = device_kind(device, "--device")
    variant = "quick" if quick else "full" if full else None
    part = parse_shard(shard) if shard is not None else None
    seconds = parse_duration(budget, "--budget") if budget is not None else None
    changes: dict[str, Any] = {
        "pairs": pair or (),
        **axes,
        "replicates": replicates,
        "precision": precision,
        "cell_seconds": cell_seconds,
        "serving": serving or None,
    }
    if dry_run:
        if resume is not None:
            raise FlopbenchError("--resume takes the run as it was begun; leave out --dry-run")
        request = Request(read_suite(suite or "vit"), variant, {**changes, "budget_seconds": seconds}, part)
        for cell in request.cells(kind):
            echo(cell.id)
        return
    # What the user reads goes to stderr when stdout is for a pipe.
    console = make_console(stderr=format_ != "table")
    interrupted = False
    try:
        with progress_for(console) as progress:
            result = api.run_suite(
                suite,
                device=kind,
                variant=variant,
                budget=seconds,
                shard=part,
                threads=threads,
                results=results,
                resume=resume,
                progress=progress,
                command=recorded_command(sys.argv[1:]),
                **changes,
            )
    except Interrupted as stopped:
        interrupted = True
        result = stopped.result
        console.print(f"interrupted; every finished cell is in {result.runs[0].path}", highlight=False)
    _show(result, reports, format_, console)
    if interrupted:
        console.print(f"continue with: flopbench run --resume {result.runs[0].path}")
        raise typer.Exit(ExitCode.INTERRUPTED)


def _show(result: "Result", reports: Path, format_: str, console: Any) -> None:
    print_tables(result, format_, console)
    files = result.report(reports)
    console.print(f"raw data: {result.runs[0].path}", soft_wrap=True)
    console.print(f"report:   {files.markdown}", soft_wrap=True)
    for answer in files.answers:
        console.print(answer.in_short, markup=False)
