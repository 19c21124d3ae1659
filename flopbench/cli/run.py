"""`flopbench run`."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flopbench.cli.axes import Values, device_kind, with_axes
from flopbench.cli.console import echo, make_console
from flopbench.errors import ExitCode, FlopbenchError

if TYPE_CHECKING:
    from flopbench.cells import Cell, DeviceKind
    from flopbench.results import Run
    from flopbench.runner.process import Launch
    from flopbench.suites import Profile, Suite, Variant

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

    from flopbench.report import FORMATS
    from flopbench.runner.needs import warnings
    from flopbench.runner.progress import progress_for
    from flopbench.runner.sweep import launcher, shard_of, sweep

    if format_ not in FORMATS:
        raise FlopbenchError(f"--format {format_!r}: choose one of {', '.join(FORMATS)}")
    changes: dict[str, Any] = {
        "pairs": tuple(pair or ()),
        **axes,
        "replicates": replicates,
        "precision": precision,
        "cell_seconds": cell_seconds,
        "serving": serving or None,
        "budget_seconds": parse_duration(budget) if budget is not None else None,
    }
    launch = launcher(threads)
    kind = device_kind(device)
    part = parse_shard(shard) if shard is not None else None
    if resume is not None:
        given = [name for name, value in changes.items() if value not in (None, ())]
        flags = {"shard": shard, "quick": quick, "full": full, "dry_run": dry_run}
        measured = _resumed(resume, launch, suite, given + [name for name, value in flags.items() if value])
    else:
        chosen = _chosen(suite or "vit", kind, quick, full, changes, part)
        if dry_run:
            for cell in chosen.cells(kind):
                echo(cell.id)
            return
        measured = _begun(chosen, kind, launch, results)
    # What the user reads goes to stderr when stdout is for a pipe.
    console = make_console(stderr=format_ != "table")
    info = measured.info
    cells = shard_of(list(info.profile.cells(info.environment.device)), info.shard)
    for line in warnings(cells, info.environment):
        console.print(line, style="yellow", markup=False, highlight=False)
    interrupted = False
    try:
        with progress_for(console) as progress:
            sweep(measured, progress, launch=launch)
    except KeyboardInterrupt:
        interrupted = True
        console.print(f"interrupted; every finished cell is in {measured.path}", highlight=False)
    _show(measured, reports, format_, console)
    if interrupted:
        console.print(f"continue with: flopbench run --resume {measured.path}")
        raise typer.Exit(ExitCode.INTERRUPTED)


@dataclass(frozen=True)
class _Chosen:
    """What of a suite is to be measured: a variant of its profile, with changes, and a part of that."""

    suite: "Suite"
    variant: "Variant | None"
    changes: dict[str, Any]
    shard: tuple[int, int] | None

    def profile(self, device: "DeviceKind") -> "Profile":
        from flopbench.suites import override

        return override(self.suite.profile(device, self.variant), **self.changes)

    def cells(self, device: "DeviceKind | None") -> "list[Cell]":
        from flopbench.runner.sweep import check_cells, probe_environment, shard_of

        kind = device or probe_environment(None).device
        cells = shard_of(list(self.profile(kind).cells(kind)), self.shard)
        check_cells(cells)
        return cells


def _chosen(
    suite_name: str,
    device: "DeviceKind | None",
    quick: bool,
    full: bool,
    changes: dict[str, Any],
    shard: tuple[int, int] | None,
) -> _Chosen:
    """What to measure, all input checked before any process is started."""
    from flopbench.runner.sweep import shard_of
    from flopbench.suites import load_suite

    if quick and full:
        raise FlopbenchError("--quick and --full exclude one another: choose one, or neither")
    suite = load_suite(suite_name)
    chosen = _Chosen(suite, "quick" if quick else "full" if full else None, changes, shard)
    for kind in (device,) if device else suite.variant(chosen.variant) or suite.profiles:
        shard_of(list(chosen.profile(kind).cells(kind)), shard)
    return chosen


def _begun(chosen: _Chosen, device: str | None, launch: "Launch", results: Path) -> "Run":
    """A new run of what was chosen. Nothing is written before all is checked."""
    from flopbench.runner.sweep import new_run, probe_environment, recorded_command

    environment = probe_environment(device, launch)
    chosen.cells(environment.device)
    return new_run(
        chosen.suite,
        chosen.profile(environment.device),
        environment,
        results,
        variant=chosen.variant,
        command=recorded_command(sys.argv[1:]),
        shard=chosen.shard,
    )


def _resumed(resume: Path, launch: "Launch", suite_name: str | None, given: list[str]) -> "Run":
    """The run to go on with, as it was begun."""
    from flopbench.results import Run
    from flopbench.runner.sweep import check_resumable, probe_environment
    from flopbench.suites import load_suite

    run = Run.open(resume)
    if given:
        raise FlopbenchError(f"--resume takes the run as it was begun; leave out {', '.join(given)}")
    suite = load_suite(suite_name) if suite_name else None
    check_resumable(run, suite, probe_environment(run.info.environment.device, launch))
    return run


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
