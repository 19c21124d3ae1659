"""A profile's tables."""

from collections.abc import Iterator, Sequence
from typing import get_args

from flopbench.profiling.explain import about, fused_mode, on_device, remainder, speed_ups
from flopbench.profiling.roofline import least_seconds
from flopbench.report import text
from flopbench.report.table import Column, Table, words
from flopbench.results import Group, ModelProfile, ProfileRecord

OPERATORS_SHOWN = 12
_NAME_LENGTH = 60

_TIMES = (Column("baseline", write=text.seconds), Column("candidate", write=text.seconds))
_RATIO = Column("ratio", write=text.times)
# Seconds, calls and share of either model.
_COSTS = tuple(
    Column(header, f"{role} {header}", write, rank=rank)
    for rank, role in enumerate(("baseline", "candidate"), 1)
    for header, write in ((role, text.seconds), ("calls", text.exact), ("share", text.percent))
)


def all_tables(record: ProfileRecord) -> list[Table]:
    """Speed-ups, groups, parts of the network and operators."""
    tables = [speed_up_table(record), group_table(record), part_table(record), operator_table(record)]
    return [table for table in tables if table.rows]


def speed_up_table(record: ProfileRecord) -> Table:
    """Promised, allowed, measured; with the least times behind them."""
    b, c, ups = record.baseline, record.candidate, speed_ups(record)
    rows = []
    if ups is not None and b.bound is not None and c.bound is not None:
        launches = " and launches" if b.bound.launches else ""
        device, bounds = record.cell.device, (b.bound, c.bound)
        fused = [least_seconds(bound, device, fused_mode(record.cell)) for bound in bounds]
        least = [least_seconds(bound, device, "eager") for bound in bounds]
        mark = ", with operators left out" if about(record) else ""
        promised = f"promised by the MACs (arithmetic at the peak{mark})"
        rows = [
            (promised, b.bound.arithmetic, c.bound.arithmetic, ups.promised),
            (f"allowed, each layer fused{launches if device == 'cuda' else ''}", *fused, ups.allowed_fused),
            (f"allowed, operator by operator{launches}", *least, ups.allowed_unfused),
            ("measured", b.seconds, c.seconds, ups.measured),
        ]
    columns = (words("what", wraps=True), *_TIMES, Column("speed-up", write=text.times))
    return Table.of("Least times and measured ones", columns, rows)


def group_table(record: ProfileRecord) -> Table:
    """Seconds, calls and share by kind of operator, with the remainder to the measured time."""
    models = (record.baseline, record.candidate)
    rows = [
        (group, [m.groups.get(group, 0.0) for m in models], [_calls(m, group) for m in models])
        for group in get_args(Group)
        if any(m.groups.get(group) for m in models)
    ]
    rows.append(
        ("idle" if on_device(record) else "unexplained", [remainder(m) for m in models], [None, None])
    )
    rows.append(("measured", [m.seconds for m in models], [None, None]))
    flat = [(name, *_costs(models, seconds, calls), _ratio(*seconds)) for name, seconds, calls in rows]
    return Table.of("Where the time goes", (words("kind of operator"), *_COSTS, _RATIO), flat)


def part_table(record: ProfileRecord) -> Table:
    """Measured and least seconds of each part of the network; empty for compiled networks."""
    models = (record.baseline, record.candidate)
    rows = []
    for part in dict.fromkeys(part for model in models for part in model.parts):
        seconds = [m.parts.get(part, 0.0) for m in models]
        least = [m.bound.parts.get(part, (0.0, 0.0))[0] if m.bound else None for m in models]
        rows.append((part, seconds[0], least[0], seconds[1], least[1], _ratio(*seconds)))
    least_of = [Column("at least", f"least {role}", text.seconds) for role in ("baseline", "candidate")]
    columns = (words("part"), _TIMES[0], least_of[0], _TIMES[1], least_of[1], _RATIO)
    return Table.of("By part of the network", columns, rows)


def operator_table(record: ProfileRecord) -> Table:
    """The operators or kernels that take longest in either model."""
    models = (record.baseline, record.candidate)
    own = [{(operator.name, operator.group): operator for operator in m.operators} for m in models]

    def longest(key: tuple[str, str]) -> float:
        return max(times[key].seconds if key in times else 0.0 for times in own)

    rows = []
    for key in sorted(own[0].keys() | own[1].keys(), key=lambda key: (-longest(key), key))[:OPERATORS_SHOWN]:
        found = [times.get(key) for times in own]
        name = key[0] if len(key[0]) <= _NAME_LENGTH else f"{key[0][: _NAME_LENGTH - 1]}…"
        costs = _costs(
            models, [time and time.seconds for time in found], [time and time.calls for time in found]
        )
        rows.append((name, key[1], *costs))
    columns = (words("operator or kernel", wraps=True), words("kind", rank=3), *_COSTS)
    return Table.of(f"The {OPERATORS_SHOWN} longest operators (own time)", columns, rows)


def _calls(model: ModelProfile, group: Group) -> float | None:
    return sum(operator.calls for operator in model.operators if operator.group == group)


def _costs(
    models: Sequence[ModelProfile], seconds: Sequence[float | None], calls: Sequence[float | None]
) -> Iterator[float | None]:
    """Seconds, calls and share of the first model, then of the second."""
    for model, own_seconds, own_calls in zip(models, seconds, calls, strict=True):
        yield from (own_seconds, own_calls, None if own_seconds is None else own_seconds / model.seconds)


def _ratio(baseline: float, candidate: float) -> float | None:
    return baseline / candidate if baseline > 0 and candidate > 0 else None
