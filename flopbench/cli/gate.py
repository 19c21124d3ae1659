"""`flopbench gate` and `flopbench gate self-test`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flopbench.cli.console import echo, make_console
from flopbench.errors import ExitCode, FlopbenchError

if TYPE_CHECKING:
    from flopbench.regression.decision import Comparison


def gate(
    suite: Annotated[str, typer.Option(help="Name of a suite or a TOML file.")] = "vit",
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Folder, exact.json, git:REF or git:REF:FOLDER; by default results/baselines/SUITE."
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Measure this commit too, alternating with the working tree: git:main.")
    ] = None,
    tier: Annotated[str, typer.Option(help="exact (no GPU, no statistics), statistical, or all.")] = "all",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The suite's small profile.")] = False,
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help="Write what is measured as the baseline, and pass.")
    ] = False,
    processes: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Fresh processes a cell and side: the unit of the statistics."),
    ] = 4,
    strict: Annotated[bool, typer.Option("--strict", help="Ambiguous is a failure: exit code 4.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write comparison.json and comparison.md here.")] = None,
    results: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("results"),
) -> None:
    """Measure, compare with a baseline, fail on a regression.

    Without a baseline, write one and pass; in CI (the variable CI is set) nothing passes without a
    comparison: that is exit code 3, unless --write-baseline is given. Exit codes: 0 pass, 1 regression,
    3 no baseline, or the baseline has cells or networks that were not measured now, 4 ambiguous (with
    --strict).
    """

    from flopbench.regression.gate import Request, Tier
    from flopbench.runner.begin import device_kind
    from flopbench.suites import available_suites, load_suite

    chosen = load_suite(suite)
    kind = device_kind(device, "--device")
    if tier not in list(Tier):
        raise FlopbenchError(f"--tier {tier!r}: choose one of {', '.join(Tier)}")
    if against and (baseline or write_baseline):
        raise FlopbenchError("--against measures both sides now: leave out --baseline and --write-baseline")
    request = Request(chosen, Tier(tier), kind, "quick" if quick else None, processes, results)
    console = make_console(stderr=True, soft_wrap=True, markup=False)
    if against:
        from flopbench.regression.against import gate_against

        file = available_suites().get(suite, Path(suite))
        comparison = gate_against(against, request, file, say=console.print)
    else:
        from flopbench.regression.gate import gate as measure_and_decide
        from flopbench.runner.progress import progress_for

        with progress_for(console) as progress:
            comparison = measure_and_decide(
                request, progress, baseline=baseline, write=write_baseline, say=console.print
            )
    _tell(comparison, title=f"flopbench gate, suite {chosen.name}", out=out, junit=junit)
    raise typer.Exit(ExitCode.OK if write_baseline else comparison.exit_code(strict=strict))


def show(comparison: "Comparison") -> None:
    """Print a comparison to the terminal."""
    from rich.text import Text

    from flopbench.report.text import printable

    console = make_console()
    for part in comparison.shown():
        if isinstance(part, str):
            # A terminal may break a line where it likes, a log must not.
            console.print(Text(printable(part)), soft_wrap=True)
        else:
            console.print(part)


def _tell(comparison: "Comparison", *, title: str, out: Path | None, junit: Path | None) -> None:
    from flopbench.regression.output import annotations, markdown, on_github, write_files, write_job_summary

    show(comparison)
    write_files(comparison, out=out, junit_file=junit, title=title)
    if on_github():
        for line in annotations(comparison):
            echo(line)
    write_job_summary(markdown(comparison, title=title))


def self_test(
    suite: Annotated[str, typer.Option(help="Suite whose minimum effect the gate must see.")] = "vit",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    trials: Annotated[
        int, typer.Option(min=5, max=10_000, help="Trials without a change; 24 take five minutes in all.")
    ] = 24,
) -> None:
    """Find out what the gate sees on this machine.

    How often it fails without a change, and which slow-downs it finds. Exit code 3 if it misses a target.
    """
    from rich.progress import Progress

    from flopbench.regression.decision import Outcome
    from flopbench.regression.self_test import FALSE_ALARMS, POWER, POWER_AT
    from flopbench.regression.self_test import self_test as test_gate
    from flopbench.report import text
    from flopbench.report.table import KEY, Column, Table
    from flopbench.runner.begin import device_kind
    from flopbench.suites import load_suite
    from flopbench.timing.environment import choose_device

    effect = load_suite(suite).minimum_effect.throughput
    kind = device_kind(device, "--device")
    console = make_console()
    with Progress(console=make_console(stderr=True), transient=True) as progress:
        task = progress.add_task("trials")
        power = test_gate(
            choose_device(kind),
            effect=effect,
            trials=trials,
            on_trial=lambda done, of: progress.update(task, completed=done, total=of),
        )
    percent = partial(text.percent, decimals=1)
    outcomes = [outcome for outcome in Outcome if outcome is not Outcome.MISSING]
    columns = (
        Column("injected slow-down", write=lambda value: percent(value) if value else "none (A/A)", rank=KEY),
        Column("decisions"),
        *(Column(outcome, write=percent) for outcome in outcomes),
    )
    rows = [
        (slowdown, counts.total(), *(counts[outcome] / counts.total() for outcome in outcomes))
        for slowdown, counts in power.outcomes.items()
    ]
    console.print(Table.of("", columns, rows))
    found = power.smallest_found
    lines = (
        f"The minimum effect is {effect:.1%}: no smaller change of speed-up or throughput may fail. Power "
        f"is judged at {POWER_AT:g} × that: a change of just the minimum effect lies on the limit itself and "
        "hardly ever has its whole interval beyond.",
        f"False alarms: {power.false_alarms:.1%} (target under {FALSE_ALARMS:.0%}; "
        f"this many decisions rule out more than {power.false_alarms_at_most:.1%})",
        f"Power at {POWER_AT * effect:.1%}: {power.power:.1%} (target {POWER:.0%})",
        f"Slow-downs of {found:.1%} and more are found here"
        if found
        else "No injected slow-down is found reliably here",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    raise typer.Exit(ExitCode.OK if power.holds else ExitCode.NOTHING_MEASURED)
