"""Comparing the JSON files that pytest-benchmark saves, ours and anyone's.

Raw data (`--benchmark-save-data`) is used where it is there; else the median with an interval from
the interquartile range. The `flopbench` fixture leaves the speed-up's rounds in `extra_info`, and these
are compared between machines as well.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, Field, ValidationError

from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.frozen import Frozen
from flopbench.regression.compare import timed_change, without_base
from flopbench.regression.decision import Change, Comparison, correct, missing
from flopbench.regression.statistics import DRAWS, Worsening, spread, worsening
from flopbench.results import read_record
from flopbench.suites import MinimumEffect

EXTRA = "flopbench"
"""Key of `extra_info` under which the fixture of `flopbench.testing.plugin` keeps its figures."""
PROCESS_SPREAD = 0.04
"""Relative deviation between processes that is allowed for. A file is one process, which cannot show it."""


class _Foreign(Frozen):
    """A part of somebody else's format: what is not named here is theirs; a text is no number."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Stats(_Foreign):
    """Seconds a call: their median, interquartile range and number, and the values where they were saved."""

    median: float
    iqr: float | None = None
    rounds: int = 1
    data: list[float] | None = None

    @property
    def fault(self) -> str:
        """Why these are no times; empty where they are."""
        wrong = [value for value in (self.median, *(self.data or ())) if not _positive(value)]
        return f"{wrong[0]:g} seconds are no time" if wrong else ""


class Fixture(_Foreign):
    """What the fixture `flopbench` left: the speed-up, and that of each round."""

    speedup: float
    round_speedups: list[float] = Field(min_length=1)


class Entry(_Foreign):
    """One benchmark."""

    fullname: str
    stats: Stats
    extra_info: dict[str, Any] | None = None

    @property
    def fixture(self) -> Fixture | None:
        """Our fixture's figures; None where there are none that can be compared."""
        try:
            found = Fixture.model_validate((self.extra_info or {}).get(EXTRA))
        except ValidationError:
            return None
        return found if all(map(_positive, (found.speedup, *found.round_speedups))) else None


class Cpu(_Foreign):
    """Name and cores of a processor."""

    brand_raw: str | None = None
    count: int | None = None


class Machine(_Foreign):
    """Where a file was measured."""

    cpu: Cpu | None = None
    processor: str | None = None

    def differences(self, other: "Machine") -> str:
        """`cpu: mine → theirs`, empty for the same processor."""
        named = zip(("cpu", "cores"), self._described, other._described, strict=True)
        return "; ".join(f"{name}: {one} → {another}" for name, one, another in named if one != another)

    @property
    def _described(self) -> tuple[object, object]:
        cpu = self.cpu or Cpu()
        return cpu.brand_raw or self.processor or "unknown", cpu.count or "unknown"


class File(_Foreign):
    """A file of pytest-benchmark."""

    machine_info: Machine | None = None
    benchmarks: list[Entry]

    @classmethod
    def read(cls, path: Path) -> "File":
        """Read it.

        Raises:
            FlopbenchError: it is something else, lacks what is needed, or holds two benchmarks of one name.
        """
        file = read_record(path, cls, "is not a file of pytest-benchmark")
        (name, count), *_ = Counter(entry.fullname for entry in file.benchmarks).most_common(1) or [("", 0)]
        if count > 1:
            raise FlopbenchError(
                f"{path} holds {count} benchmarks called {name}: give each a name of its own"
            )
        return file


def compare_files(base: Path, new: Path, effects: MinimumEffect) -> Comparison:
    """How the benchmarks that two files have in common changed; what the new one lacks is missing.

    Raises:
        FlopbenchError: a file is no JSON of pytest-benchmark, or no benchmark is in both.
        NothingMeasuredError: nothing that both have can be compared.
    """
    before, after = File.read(base), File.read(new)
    old, fresh = ({entry.fullname: entry for entry in side.benchmarks} for side in (before, after))
    if not old.keys() & fresh.keys():
        raise FlopbenchError(f"nothing to compare: {base.name} and {new.name} have no benchmark in common")
    difference = (before.machine_info or Machine()).differences(after.machine_info or Machine())
    changes: list[Change] = []
    notes: list[str] = []
    if difference:
        notes.append(f"another machine ({difference}): only speed-ups measured side by side are compared")
    for name, one in old.items():
        other = fresh.get(name)
        if other is None:
            changes.append(missing(name))
            continue
        if one.stats.fault:
            notes.append(f"{name} not compared: before, {one.stats.fault}")
        elif other.stats.fault:
            changes.append(missing(name, "seconds", f"cannot be compared now: {other.stats.fault}"))
        elif not difference:
            changes.append(_seconds(one, other, effects))
        if one.fixture and other.fixture:
            changes.append(_speedup(name, one.fixture, other.fixture, effects))
        elif one.fixture:
            changes.append(missing(name, "speedup", "has no speed-up now"))
    if not changes:
        raise NothingMeasuredError(f"no benchmark is comparable: {'; '.join(notes)}")
    notes += without_base("benchmarks", old, fresh)
    if any(change.change for change in changes):
        notes.append(
            f"a file is one process, and processes are taken to differ by {PROCESS_SPREAD:.0%}: "
            "a smaller change shows in runs of several (flopbench run --replicates 4)"
        )
    return Comparison(base=base.stem, new=new.stem, changes=correct(changes), notes=tuple(notes))


def _seconds(base: Entry, new: Entry, effects: MinimumEffect) -> Change:
    name, effect = new.fullname, effects.of("throughput", new.fullname)
    values = [np.log(np.array(entry.stats.data or [], dtype=float)) for entry in (base, new)]
    if any(len(side) < 2 for side in values):
        found, noise = _from_summary(base.stats, new.stats), 0.0
    else:
        found, noise = worsening(*values), spread(*values, processes=False)
    medians = base.stats.median, new.stats.median
    return timed_change(name, "seconds", _between_processes(found), *medians, effect=effect, noise=noise)


def _speedup(name: str, base: Fixture, new: Fixture, effects: MinimumEffect) -> Change:
    values = [-np.log(np.array(side.round_speedups, dtype=float)) for side in (base, new)]
    found, noise = _between_processes(worsening(*values)), spread(*values, processes=False)
    effect = effects.of("speedup", name)
    return timed_change(name, "speedup", found, base.speedup, new.speedup, effect=effect, noise=noise)


def _between_processes(found: Worsening | None) -> Worsening | None:
    return found and found.widened(math.sqrt(2) * PROCESS_SPREAD)


def _from_summary(base: Stats, new: Stats) -> Worsening | None:
    """The median's deviation is 1.2533 σ/√n, σ the interquartile range / 1.349; Student's t for few rounds.

    None where that says nothing: one round, or no spread.
    """
    sides = (base, new)
    if any(side.rounds < 2 or side.iqr is None or not _positive(side.iqr) for side in sides):
        return None
    errors = [1.2533 * (s.iqr or 0.0) / 1.349 / s.rounds**0.5 / s.median for s in sides]
    estimate, degrees = math.log(new.median / base.median), base.rounds + new.rounds - 2
    draws = np.random.default_rng(0).standard_t(degrees, DRAWS)
    return Worsening(estimate, estimate + math.hypot(*errors) * draws)


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
