"""Comparing the JSON files that pytest-benchmark saves, ours and anyone's.

Raw data (`--benchmark-save-data`) is used where it is there; else the median with an interval from
the interquartile range. The `flopbench` fixture leaves the speed-up's rounds in `extra_info`, and these
are compared between machines as well.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.regression.compare import only_in_one, timed_change
from flopbench.regression.decision import Change, Comparison, correct
from flopbench.regression.statistics import DRAWS, Worsening, spread, worsening
from flopbench.suites import MinimumEffect

EXTRA = "flopbench"
"""Key of `extra_info` under which the fixture of `flopbench.testing.plugin` keeps its figures."""


def compare_files(base: Path, new: Path, effects: MinimumEffect) -> Comparison:
    """How the benchmarks that two files have in common changed.

    Raises:
        FlopbenchError: a file is no JSON of pytest-benchmark, or no benchmark is in both.
        NothingMeasuredError: the machines differ and no benchmark has a speed-up.
    """
    before, after = _read(base), _read(new)
    old, fresh = ({entry["fullname"]: entry for entry in side["benchmarks"]} for side in (before, after))
    common = [(old[name], entry) for name, entry in fresh.items() if name in old]
    if not common:
        raise FlopbenchError(f"nothing to compare: {base.name} and {new.name} have no benchmark in common")
    difference = _machine_difference(before, after)
    changes = []
    for one, other in common:
        if not difference:
            changes.append(_seconds(one, other, effects))
        if EXTRA in one.get("extra_info", {}) and EXTRA in other.get("extra_info", {}):
            changes.append(_speedup(one, other, effects))
    notes = []
    if difference:
        notes.append(f"another machine ({difference}): only speed-ups measured side by side are compared")
        if not changes:
            raise NothingMeasuredError(f"no benchmark is comparable between machines: {difference}")
    notes += only_in_one("benchmarks", old, fresh)
    return Comparison(base=base.stem, new=new.stem, changes=correct(changes), notes=tuple(notes))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FlopbenchError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise FlopbenchError(f"{path} is not a file of pytest-benchmark: it has no list of benchmarks")
    return content


def _machine_difference(base: dict[str, Any], new: dict[str, Any]) -> str:
    def describe(content: dict[str, Any]) -> tuple[str, str]:
        machine = content.get("machine_info", {})
        cpu = machine.get("cpu", {})
        return str(cpu.get("brand_raw", machine.get("processor", "unknown"))), str(
            cpu.get("count", "unknown")
        )

    named = zip(("cpu", "cores"), describe(base), describe(new), strict=True)
    return "; ".join(f"{name}: {one} → {other}" for name, one, other in named if one != other)


def _seconds(base: dict[str, Any], new: dict[str, Any], effects: MinimumEffect) -> Change:
    name, effect = new["fullname"], effects.of("throughput", new["fullname"])
    values = [np.log(np.array(entry["stats"].get("data") or [], dtype=float)) for entry in (base, new)]
    medians = (float(entry["stats"]["median"]) for entry in (base, new))
    if any(len(side) < 2 for side in values):
        found, noise = _from_summary(base["stats"], new["stats"]), 0.0
    else:
        found, noise = worsening(*values), spread(*values, processes=False)
    return timed_change(name, "seconds", found, *medians, effect=effect, noise=noise)


def _speedup(base: dict[str, Any], new: dict[str, Any], effects: MinimumEffect) -> Change:
    ours = [entry["extra_info"][EXTRA] for entry in (base, new)]
    values = [-np.log(np.array(side["round_speedups"], dtype=float)) for side in ours]
    estimates = (float(side["speedup"]) for side in ours)
    name, noise = new["fullname"], spread(*values, processes=False)
    effect = effects.of("speedup", name)
    return timed_change(name, "speedup", worsening(*values), *estimates, effect=effect, noise=noise)


def _from_summary(base: dict[str, Any], new: dict[str, Any]) -> Worsening:
    """Normal approximation: the median's deviation is 1.2533 σ/√n, σ the interquartile range / 1.349."""
    deviation = np.hypot(
        *(1.2533 * s["iqr"] / 1.349 / max(1, s["rounds"]) ** 0.5 / s["median"] for s in (base, new))
    )
    estimate = float(np.log(new["median"] / base["median"]))
    return Worsening(estimate, estimate + float(deviation) * np.random.default_rng(0).standard_normal(DRAWS))
