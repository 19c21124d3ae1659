"""The gate: measure now, compare with a baseline, decide.

The exact tier needs neither GPU nor statistics and catches most; the statistical tier times the suite
on this machine.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.modes import DeviceKind
from flopbench.regression.baseline import Baseline, locate, open_baseline
from flopbench.regression.compare import compare_runs, require_common
from flopbench.regression.decision import Comparison, Outcome
from flopbench.regression.exact import compare_exact, measure_exact
from flopbench.results import Run
from flopbench.runner.begin import new_run, recorded_command
from flopbench.runner.sweep import Observer, check_cells, probe_environment, sweep
from flopbench.suites import Profile, Suite, Variant, override


class Tier(StrEnum):
    """Which figures are gated."""

    EXACT = "exact"
    STATISTICAL = "statistical"
    ALL = "all"

    @property
    def exact(self) -> bool:
        """Whether the exact figures are."""
        return self is not Tier.STATISTICAL

    @property
    def statistical(self) -> bool:
        """Whether times and memory are."""
        return self is not Tier.EXACT


@dataclass(frozen=True)
class Request:
    """What to gate.

    Attributes:
        suite: what is measured, with its minimum effects.
        tier: which figures.
        device: cpu or cuda; None for a GPU if there is one.
        variant: of the suite's profile, e.g. quick.
        processes: fresh processes a cell and side, at least: the unit of the statistics.
        results: where the run's folder goes.
    """

    suite: Suite
    tier: Tier
    device: DeviceKind | None = None
    variant: Variant | None = None
    processes: int = 4
    results: Path = Path("results")

    def exact_profile(self) -> Profile:
        """The profile whose models the exact tier looks at: on a CPU, whichever device is timed."""
        kind: DeviceKind = self.device or ("cpu" if "cpu" in self.suite.profiles else "cuda")
        return self.suite.profile(kind, self.variant)


Say = Callable[[str], None]


def gate(
    request: Request,
    observer: Observer,
    *,
    baseline: str | None = None,
    write: bool = False,
    say: Say = lambda line: None,
) -> Comparison:
    """Measure, compare with the baseline, and write it where there is none yet, outside of CI.

    Args:
        request: what to gate.
        observer: who watches the sweep.
        baseline: folder, `exact.json`, `git:REF` or `git:REF:PATH`; by default `results/baselines/SUITE`.
        write: renew the baseline with what was measured.
        say: told what is being done.

    Raises:
        FlopbenchError: the baseline is damaged, of another suite, or shares no cell with what is measured.
        NothingMeasuredError: no cell could be measured; or there is no baseline and none is written, in CI
            or at a commit: what passes without a comparison would pass for ever.
    """
    where = locate(baseline, request.suite.name)
    with open_baseline(where) as base:
        if write and base.at_commit:
            raise FlopbenchError(f"--write-baseline cannot write to {where}: name a folder")
        if request.tier.statistical and not base.at_commit and base.run_folder is None:
            raise FlopbenchError(f"{where} is one file, for exact figures: name a folder, or --tier exact")
        lacking = [
            tier
            for tier, wanted, there in (
                (Tier.EXACT, request.tier.exact, base.exact),
                (Tier.STATISTICAL, request.tier.statistical, base.run),
            )
            if wanted and there is None
        ]
        if lacking and not write and (base.at_commit or _in_ci()):
            raise NothingMeasuredError(
                f"no {' and no '.join(lacking)} baseline at {where}, nothing to compare with: "
                "take one with --write-baseline and commit it"
            )
        comparison = Comparison(base=where, new="now")
        if request.tier.exact:
            comparison += _exact(request, base, write, say)
        if request.tier.statistical:
            comparison += _statistical(request, base, write, observer, say)
        return comparison


def _exact(request: Request, base: Baseline, write: bool, say: Say) -> Comparison:
    if base.exact is not None and base.exact.suite != request.suite.name:
        raise FlopbenchError(
            f"baseline {base.name} is of suite {base.exact.suite!r}, not {request.suite.name!r}"
        )
    new = measure_exact(
        request.suite.name, request.exact_profile(), lambda name: say(f"exact figures of {name}")
    )
    found = base.exact
    nothing = Comparison(base=base.name, new="now", notes=(_nothing_to_compare(base, Tier.EXACT),))
    comparison = compare_exact(found, new, request.suite.minimum_effect) if found else nothing
    if write or found is None:
        comparison += _note(f"baseline written: {base.write_exact(new)}")
    return comparison


def _statistical(request: Request, base: Baseline, write: bool, observer: Observer, say: Say) -> Comparison:
    environment = probe_environment(request.device)
    profile = request.suite.profile(environment.device, request.variant)
    profile = override(profile, replicates=max(profile.replicates, request.processes))
    cells = list(profile.cells(environment.device))
    check_cells(cells)
    if base.run is not None and not write:
        require_common(base.run, cells)
    command = recorded_command(sys.argv[1:])
    run = new_run(
        request.suite, profile, environment, request.results, variant=request.variant, command=command
    )
    say(f"measuring into {run.path}")
    sweep(run, observer)
    if base.run is None:
        comparison = Comparison(
            base=base.name, new="now", notes=(_nothing_to_compare(base, Tier.STATISTICAL),)
        )
    else:
        comparison = compare_runs(base.run, run, request.suite.minimum_effect)
        if comparison.of(Outcome.AMBIGUOUS) and not comparison.of(Outcome.FAIL):
            comparison = _again(base.run, run, comparison, request, observer, say)
    if write or base.run is None:
        comparison += _note(f"baseline written: {base.write_run(run)}")
    return comparison


def _again(
    base: Run, run: Run, comparison: Comparison, request: Request, observer: Observer, say: Say
) -> Comparison:
    """The ambiguous cells measured once more, in fresh processes, and decided on with all samples."""
    subjects = {change.subject for change in comparison.of(Outcome.AMBIGUOUS)}
    say(f"{len(subjects)} cells are ambiguous and are measured again")
    records = run.records()
    replicate = 1 + max(record.replicate for record in records)
    cells = {record.cell.id: record.cell for record in records if record.cell.id in subjects}
    sweep(run, observer, [(cell, replicate) for cell in cells.values()])
    return compare_runs(base, run, request.suite.minimum_effect)


def _in_ci() -> bool:
    """As CI systems say it: `CI` is set, and not to a word for no."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _nothing_to_compare(base: Baseline, tier: Tier) -> str:
    return f"no {tier} baseline at {base.name}: passed without a comparison"


def _note(text: str) -> Comparison:
    return Comparison(base="", new="", notes=(text,))
