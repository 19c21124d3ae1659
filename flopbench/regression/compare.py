"""Two runs, cell by cell: what may be compared, and how each figure changed.

On the same machine times and memory are compared as they are. Between machines only what is
comparable is: parameters, MACs, and the speed-up of a pair, which was measured side by side.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from flopbench.cells import AXES, Cell
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.regression.decision import Change, Comparison, Outcome, correct, decide, missing
from flopbench.regression.statistics import (
    Array,
    Worsening,
    paired_worsening,
    pooled_deviation,
    spread,
    worsening,
)
from flopbench.results import CellRecord, Environment, Interval, ModelResult, Run
from flopbench.suites import Metric, MinimumEffect
from flopbench.timing.statistics import round_log_ratios, trimmed_mean

Role = Literal["baseline", "candidate"]
ROLES: tuple[Role, ...] = ("baseline", "candidate")

MACHINE = ("device", "device_name", "device_count", "cpu", "cores", "threads")
"""What has to be the same for times to be comparable."""
SOFTWARE = (
    "driver",
    "cuda",
    "cudnn",
    "torch",
    "triton",
    "compiler",
    "cpu_capability",
    "kernels",
    "python",
    "os",
)
"""What explains a change that is not the code's."""
SINGLE = "one process per side does not show how processes differ: measure several (--replicates 4)"

METRICS: tuple[Metric, ...] = ("speedup", "throughput", "peak_memory", "macs")
SAME_MACHINE: tuple[Metric, ...] = ("throughput", "peak_memory")


def compare_runs(
    base: Run,
    new: Run,
    effects: MinimumEffect | None = None,
    *,
    metrics: Sequence[Metric] = (),
) -> Comparison:
    """How the cells that two runs have in common changed from `base` to `new`.

    Args:
        base: the run before.
        new: the run after.
        effects: the smallest changes that matter.
        metrics: only these; by default all that the two machines allow.

    Raises:
        FlopbenchError: the runs have no cell in common, or a metric was asked for that the two machines
            do not allow to compare; the difference is named.
        NothingMeasuredError: no common cell was measured in both.
    """
    differences = base.info.environment.differences(new.info.environment, MACHINE)
    for metric in metrics:
        if metric in SAME_MACHINE and differences:
            raise FlopbenchError(f"{metric} is not comparable between machines: {'; '.join(differences)}")
    allowed: list[Metric] = [m for m in metrics or METRICS if not (differences and m in SAME_MACHINE)]
    calibration = base.calibration()
    comparison = compare_records(
        by_cell(base.records()),
        by_cell(new.records()),
        effects or MinimumEffect(),
        allowed,
        visible=calibration.visible_change if calibration else {},
    )
    notes = [*comparison.notes, *environment_notes(base.info.environment, new.info.environment)]
    return comparison.model_copy(update={"base": base.info.id, "new": new.info.id, "notes": tuple(notes)})


def compare_records(
    base: dict[str, list[CellRecord]],
    new: dict[str, list[CellRecord]],
    effects: MinimumEffect,
    metrics: Iterable[Metric] = METRICS,
    *,
    visible: Mapping[str, float] | None = None,
    paired: bool = False,
) -> Comparison:
    """As `compare_runs`, from the records of each cell, a record a process.

    `visible` is the smallest change of a cell's speed-up that the machine can see, where it was calibrated.
    `paired` says that the n-th records of both sides were taken one right after the other, which is made
    use of for times. A speed-up was measured side by side already: pairing it again would only halve the
    degrees of freedom, and with four processes a side make its interval half as wide again.

    Raises:
        FlopbenchError: no cell in common.
        NothingMeasuredError: no common cell was measured in both.
    """
    common = [cell for cell in base if cell in new]
    if not common:
        before, after = ([records[0].cell for records in side.values()] for side in (base, new))
        raise FlopbenchError(f"nothing to compare, no cell in common: {_unlike(before, after)}")
    metrics = tuple(metrics)
    changes: list[Change] = []
    notes: list[str] = []
    for cell in common:
        before, after = _measured(base[cell]), _measured(new[cell])
        if before and after:
            changes += cell_changes(
                before, after, effects, metrics, visible=(visible or {}).get(cell, 0.0), paired=paired
            )
        elif before and new[cell][-1].status == "skipped":
            changes.append(
                missing(cell, reason=f"is skipped now ({new[cell][-1].reason or 'no reason given'})")
            )
        elif before:
            changes.append(_broken(cell, new[cell][-1]))
        else:
            notes.append(f"{cell} not compared: {_why_not(base[cell])} before, {_why_not(new[cell])} now")
    if not changes:
        raise NothingMeasuredError("no cell was measured in both: " + "; ".join(notes[:3]))
    changes += [missing(cell) for cell, records in base.items() if cell not in new and _measured(records)]
    notes += _blind(changes, effects)
    notes += without_base("cells", base, new)
    return Comparison(base="base", new="new", changes=correct(changes), notes=tuple(notes))


def without_base(what: str, base: Collection[str], new: Collection[str]) -> list[str]:
    """A note where the new state has what there is nothing to compare with."""
    only = [one for one in new if one not in base]
    return [f"{len(only)} {what} measured only now: {', '.join(only)}"] if only else []


def require_common(base: Run, cells: Iterable[Cell]) -> None:
    """Raise, before time is spent on measuring, unless some of `cells` are in `base`.

    Raises:
        FlopbenchError: none is, with the difference named.
    """
    planned, known = {cell.id: cell for cell in cells}, {r.cell.id: r.cell for r in base.records()}
    if not planned.keys() & known.keys():
        raise FlopbenchError(
            f"nothing to compare, no cell in common: {_unlike(known.values(), planned.values())}"
        )


def environment_notes(base: Environment, new: Environment) -> list[str]:
    """What two environments differ in, as far as it bears on a comparison."""
    notes = []
    if machine := base.differences(new, MACHINE):
        notes.append(
            f"another machine ({'; '.join(machine)}): throughput and peak memory are not compared, "
            "only parameters, MACs and speed-ups measured side by side"
        )
    if software := base.differences(new, SOFTWARE):
        notes.append(f"other software, which may explain a change: {'; '.join(software)}")
    return notes


def cell_changes(
    base: Sequence[CellRecord],
    new: Sequence[CellRecord],
    effects: MinimumEffect,
    metrics: Iterable[Metric] = METRICS,
    *,
    visible: float = 0.0,
    paired: bool = False,
) -> list[Change]:
    """The changes of one cell's figures; `base` and `new` hold a measured record a process, at least one."""
    # A process that failed would pair all that follow with the wrong ones.
    paired = paired and len(base) == len(new)
    cell = base[0].cell
    labels = dict(zip(ROLES, cell.labels, strict=True))
    changes: list[Change] = []
    for metric in metrics:
        tolerance = effects.of(metric, cell.id)
        if metric == "speedup":
            effect = max(tolerance, visible)
            changes.append(_timed(base, new, _log_slowdown, cell.id, metric, effect, lambda slow: 1 / slow))
        elif metric == "throughput":
            for role in ROLES:
                seconds, unit = _log_seconds(role), lambda seconds: cell.batch_size / seconds
                own = (cell.id, metric, tolerance, unit, labels[role])
                changes.append(_timed(base, new, seconds, *own, paired=paired))
        elif metric == "peak_memory":
            changes += _exact(base[0], new[0], "peak_memory", "peak_bytes", tolerance, labels)
        elif metric == "macs":
            changes += _exact(base[0], new[0], "parameters", "parameters", 0.0, labels)
            changes += _exact(base[0], new[0], "macs", "macs", tolerance, labels)
    return changes


def exact_change(subject: str, metric: str, label: str, base: float, new: float, tolerance: float) -> Change:
    """The change of a figure without noise, of which more is worse."""
    # From nothing to something is a worsening without a ratio; each unit counts as a whole.
    change = (new - base) / abs(base) if base else float(new - base)
    interval = Interval(estimate=change, low=change, high=change)
    another = metric == "parameters" and base != new
    return Change(
        subject=subject,
        metric=metric,
        label=label,
        base=base,
        new=new,
        change=interval,
        tolerance=tolerance,
        outcome=Outcome.FAIL if another else decide(interval, tolerance),
        note="not the same network" if another else "",
    )


def timed_change(
    subject: str,
    metric: str,
    found: Worsening | None,
    base: float,
    new: float,
    *,
    effect: float,
    noise: float = 0.0,
    label: str = "",
) -> Change:
    """The change of a figure with noise: `effect` is tolerated, and what is no more than thrice the noise.

    Without an interval it is ambiguous.
    """
    tolerance = max(effect, float(np.expm1(3 * noise)))
    if found is None:
        return Change(
            subject=subject,
            metric=metric,
            label=label,
            base=base,
            new=new,
            tolerance=tolerance,
            outcome=Outcome.AMBIGUOUS,
            note="a single value, or values all alike, have no interval: measure more rounds",
        )
    return Change(
        subject=subject,
        metric=metric,
        label=label,
        base=base,
        new=new,
        change=found.interval,
        tolerance=tolerance,
        outcome=decide(found.interval, tolerance),
        p_value=found.p_value(tolerance),
        note=f"tolerance is 3 × the A/A spread, above {effect:.1%}" if tolerance > effect else "",
    )


def _blind(changes: Iterable[Change], effects: MinimumEffect) -> list[str]:
    """A note where noise, and not what was stated, set the tolerance: a pass says little there."""
    notes = []
    for metric in METRICS:
        wide = [
            change.tolerance
            for change in changes
            if change.metric == metric and change.tolerance > 2 * effects.of(metric, change.subject)
        ]
        if wide:
            notes.append(
                f"too noisy for the minimum effect: {len(wide)} × {metric.replace('_', ' ')} held only to "
                f"{min(wide):.1%} to {max(wide):.1%}; quieten the machine, or take more --processes"
            )
    return notes


def _timed(
    base: Sequence[CellRecord],
    new: Sequence[CellRecord],
    values: Callable[[CellRecord], Array],
    subject: str,
    metric: Metric,
    effect: float,
    unit: Callable[[float], float],
    label: str = "",
    *,
    paired: bool = False,
) -> Change:
    """The change of what `values` are the logarithms of; `unit` turns that into the metric's figure.

    The unit is the process. Of a single one the interval over its rounds is shown, and decides nothing.
    """
    processes = min(len(base), len(new)) > 1
    sides = []
    for records in (base, new):
        rounds = [values(record) for record in records]
        sides.append(
            np.array([float(trimmed_mean(r)) for r in rounds]) if processes else np.concatenate(rounds)
        )
    before, after = sides
    if paired and processes:
        found = paired_worsening(after - before)
        # The deviation of one process, without what the machine did to both of a pair.
        noise = pooled_deviation(after - before) / 2**0.5
    else:
        found = worsening(before, after)
        noise = spread(before, after, processes=processes)
    sides = (unit(float(np.exp(trimmed_mean(side)))) for side in (before, after))
    change = timed_change(subject, metric, found, *sides, effect=effect, noise=noise, label=label)
    if processes:
        return change
    return change.model_copy(update={"outcome": Outcome.AMBIGUOUS, "p_value": None, "note": SINGLE})


def _log_slowdown(record: CellRecord) -> Array:
    baseline, candidate = _models(record)
    return -round_log_ratios(baseline.samples, candidate.samples)


def _log_seconds(role: Role) -> Callable[[CellRecord], Array]:
    def values(record: CellRecord) -> Array:
        samples = _models(record)[ROLES.index(role)].samples
        return np.array([np.log(calls).mean() for calls in samples], dtype=float)

    return values


def _exact(
    base: CellRecord, new: CellRecord, metric: str, attribute: str, tolerance: float, labels: dict[Role, str]
) -> list[Change]:
    changes = []
    for role, before, after in zip(ROLES, _models(base), _models(new), strict=True):
        values = getattr(before, attribute), getattr(after, attribute)
        if None in values:
            if values[1] is None and values[0] is not None:
                changes.append(missing(base.cell.id, metric, f"of {labels[role]} is missing now"))
            continue
        changes.append(exact_change(base.cell.id, metric, labels[role], *values, tolerance))
    return changes


def _models(record: CellRecord) -> tuple[ModelResult, ModelResult]:
    assert record.baseline is not None
    assert record.candidate is not None
    return record.baseline, record.candidate


def by_cell(records: Iterable[CellRecord]) -> dict[str, list[CellRecord]]:
    """The records of each cell, by its id."""
    cells: dict[str, list[CellRecord]] = {}
    for record in records:
        cells.setdefault(record.cell.id, []).append(record)
    return cells


def _measured(records: Iterable[CellRecord]) -> list[CellRecord]:
    return [
        record
        for record in records
        if record.status == "ok" and all(m and m.samples for m in (record.baseline, record.candidate))
    ]


def _broken(cell: str, record: CellRecord) -> Change:
    return Change(
        subject=cell,
        metric="status",
        outcome=Outcome.FAIL,
        note=f"was measured before and now is {record.status}: {record.reason or 'no reason given'}",
    )


def _why_not(records: Sequence[CellRecord]) -> str:
    return "measured" if _measured(records) else records[-1].status


def _unlike(base: Collection[Cell], new: Collection[Cell]) -> str:
    """The axes on which two sets of cells have nothing in common, else that no combination is."""
    if not base or not new:
        return f"{len(base)} cells before, {len(new)} now"
    axes: dict[str, Callable[[Cell], object]] = {
        "pair": lambda cell: cell.pair.id,
        "device": lambda cell: cell.device,
        **{axis.name: axis.of for axis in AXES.values()},
    }
    named = []
    for name, value in axes.items():
        before, after = ({str(value(cell)) for cell in side} for side in (base, new))
        if not before & after:
            named.append(f"{name} {', '.join(sorted(before))} → {', '.join(sorted(after))}")
    return "; ".join(named) or "the same values in other combinations"
