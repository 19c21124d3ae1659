"""A profile's tables, once for the terminal and for Markdown: headers and rows of text."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from flopbench.profiling.explain import remainder, speed_ups
from flopbench.profiling.roofline import least_seconds
from flopbench.report import text
from flopbench.results import Group, ModelProfile, OperatorTime, ProfileRecord

if TYPE_CHECKING:
    from rich.table import Table

OPERATORS_SHOWN = 12
# Seconds, calls and share of either model.
_ROLES = ("baseline", "calls", "share", "candidate", "calls", "share")


@dataclass(frozen=True)
class TextTable:
    """Rows of text under headers; the first column is left-aligned, the others right."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> "Table":
        """For the terminal."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for index, header in enumerate(self.headers):
            # On a narrow terminal names wrap and figures stay whole.
            name = index == 0 or header == "kind"
            table.add_column(
                Text(header), justify="left" if name else "right", overflow="fold", no_wrap=not name
            )
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


def all_tables(record: ProfileRecord) -> list[TextTable]:
    """Speed-ups, groups, parts of the network and operators."""
    tables = [speed_up_table(record), group_table(record), part_table(record), operator_table(record)]
    return [table for table in tables if table.rows]


def speed_up_table(record: ProfileRecord) -> TextTable:
    """Promised, allowed, measured; with the least times behind them."""
    b, c, ups = record.baseline, record.candidate, speed_ups(record)
    headers = ("what", "baseline", "candidate", "speed-up")
    if ups is None or b.bound is None or c.bound is None:
        return TextTable("Least times", headers, ())
    launches = " and launches" if b.bound.launches else ""
    device = record.device or "cpu"
    rows = [
        (
            "promised by the MACs (arithmetic at the peak)",
            b.bound.arithmetic,
            c.bound.arithmetic,
            ups.promised,
        ),
        ("allowed, each layer fused", b.bound.fused, c.bound.fused, ups.allowed_fused),
        (
            f"allowed, operator by operator{launches}",
            least_seconds(b.bound, device, "eager"),
            least_seconds(c.bound, device, "eager"),
            ups.allowed_unfused,
        ),
        ("measured", b.seconds, c.seconds, ups.measured),
    ]
    return TextTable(
        "Least times and measured ones",
        headers,
        tuple((name, text.seconds(x), text.seconds(y), f"{text.factor(r)}×") for name, x, y, r in rows),
    )


def group_table(record: ProfileRecord) -> TextTable:
    """Seconds, calls and share by kind of operator, with the remainder to the measured time."""
    models = (record.baseline, record.candidate)
    rows = [
        (group, *(_cells(m, m.groups.get(group, 0.0), _calls(m, group)) for m in models))
        for group in get_args(Group)
        if any(m.groups.get(group) for m in models)
    ]
    rows.append(("unexplained", *(_cells(m, remainder(m), None) for m in models)))
    rows.append(("measured", *(_cells(m, m.seconds, None) for m in models)))
    flat = []
    for name, first, second in rows:
        ratio = text.factor(first[0] / second[0]) + "×" if second[0] > 0 and first[0] > 0 else text.MISSING
        flat.append((name, *first[1], *second[1], ratio))
    headers = ("kind of operator", *_ROLES, "ratio")
    return TextTable("Where the time goes", headers, tuple(flat))


def part_table(record: ProfileRecord) -> TextTable:
    """Measured and least seconds of each part of the network; empty for compiled networks."""
    b, c = record.baseline, record.candidate
    rows = []
    for part in dict.fromkeys([*b.parts, *c.parts]):
        first, second = b.parts.get(part, 0.0), c.parts.get(part, 0.0)
        ratio = f"{text.factor(first / second)}×" if first and second else text.MISSING
        least = [text.seconds(m.bound.parts.get(part, (0.0, 0.0))[0] if m.bound else None) for m in (b, c)]
        rows.append((part, text.seconds(first), least[0], text.seconds(second), least[1], ratio))
    headers = ("part", "baseline", "at least", "candidate", "at least", "ratio")
    return TextTable("By part of the network", headers, tuple(rows))


def operator_table(record: ProfileRecord) -> TextTable:
    """The operators or kernels that take longest in either model."""
    b, c = _by_name(record.baseline), _by_name(record.candidate)

    def longest(key: tuple[str, Group]) -> float:
        return max(own[key].seconds if key in own else 0.0 for own in (b, c))

    keys: set[tuple[str, Group]] = set(b) | set(c)
    rows = []
    for key in sorted(keys, key=lambda key: (-longest(key), key))[:OPERATORS_SHOWN]:
        cells = []
        for model, own in ((record.baseline, b), (record.candidate, c)):
            found = own.get(key)
            cells += _cells(model, found.seconds, found.calls)[1] if found else (text.MISSING,) * 3
        rows.append((key[0] if len(key[0]) <= 60 else f"{key[0][:59]}…", key[1], *cells))
    headers = ("operator or kernel", "kind", *_ROLES)
    return TextTable(f"The {OPERATORS_SHOWN} longest operators (own time)", headers, tuple(rows))


def _by_name(model: ModelProfile) -> dict[tuple[str, Group], OperatorTime]:
    return {(operator.name, operator.group): operator for operator in model.operators}


def _calls(model: ModelProfile, group: Group) -> float:
    return sum(operator.calls for operator in model.operators if operator.group == group)


def _cells(model: ModelProfile, seconds: float, calls: float | None) -> tuple[float, tuple[str, ...]]:
    shown = text.seconds(seconds).replace("-", "−")
    count = text.MISSING if calls is None else f"{calls:.0f}"
    return seconds, (shown, count, text.percent(seconds / model.seconds))
