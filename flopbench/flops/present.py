"""Costs and audits as rows of text, and as raw figures for pipes."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from flopbench.flops.audit import Audit
from flopbench.flops.costs import FIGURES
from flopbench.flops.tree import Row

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes:
        caption: what it shows.
        headings: of the columns.
        rows: a cell a column.
        text_columns: how many of the first columns are words; the others are figures.
        ranks: of the columns; where the line is too short, those of the highest rank go first, and those of
            rank 0 never. Empty: all stay.
    """

    caption: str
    headings: list[str]
    rows: list[list[str]]
    text_columns: int = 1
    ranks: tuple[int, ...] = ()


def figure(value: float | None) -> str:
    """Four significant digits with a unit prefix: `17.56 G`; a dash for None."""
    if value is None:
        return "–"
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor * 0.99995:
            scaled = value / factor
            return f"{scaled:.{3 if scaled < 9.9995 else 2 if scaled < 99.995 else 1}f}{unit}"
    return f"{value:.0f}"


def share(value: float) -> str:
    """`100 %`, `99.87 %`: never rounded up to all of it."""
    return "100 %" if value == 1 else f"{min(value * 100, 99.99):.2f} %"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


def _uncounted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ×{count}" for name, count in counts.items()) or "nothing"


def audit_grid(audits: Sequence[Audit], labels: Sequence[str], *, paper: bool = False) -> Grid:
    """Each network's counters side by side, with what each left uncounted."""
    rows = []
    for label, audit in zip(labels, audits, strict=True):
        for pass_, counts in (("forward", audit.forward), ("backward", audit.backward)):
            for counter, counted in counts.items():
                macs = f"{counted.macs:,}"
                rows.append(
                    [label, pass_, counter, _uncounted(counted.uncounted), macs, share(counted.coverage)]
                )
        if paper and audit.published is not None:
            sums = f"{audit.published:,} + {audit.elementwise:,}"
            rows.append([label, "forward", "paper's sum", "nothing", f"{audit.paper_sum:,}", f"= {sums}"])
    headings = ["network", "pass", "counter", "left uncounted", "MACs", "coverage"]
    return Grid("Counts", headings, rows, text_columns=4)


def row_grid(rows: Sequence[Row], labels: Sequence[str], caption: str) -> Grid:
    """Layers or operators of a network, with its share of the MACs; or of a pair, with the ratio of MACs."""
    figures = {"macs": "MACs", "elementwise": "elementwise", "bytes": "bytes", "fused_bytes": "bytes, fused"}
    if any(cost and cost.parameters for row in rows for cost in row.costs):
        figures["parameters"] = "parameters"
    pair = len(labels) == 2
    headings, ranks = ["layer", "type"], [0, 2]
    for attribute, name in figures.items():
        headings += [f"{name} of {label}" for label in labels] if pair else [name]
        ranks += [_RANKS[attribute]] * (len(headings) - len(ranks))
        if name == "MACs":
            headings.append("ratio" if pair else "share")
            ranks.append(0)
    whole = rows[-1].costs[0]
    lines = []
    for row in rows:
        line = [row.name, row.type]
        for attribute in figures:
            line += [figure(getattr(cost, attribute)) if cost else "–" for cost in row.costs]
            if attribute == "macs" and pair:
                line.append(_ratio(row.ratio()))
            elif attribute == "macs":
                cost = row.costs[0]
                line.append(share(cost.macs / whole.macs) if cost and whole and whole.macs else "–")
        lines.append(line)
    return Grid(caption, headings, lines, text_columns=2, ranks=tuple(ranks))


_RANKS = {"macs": 0, "bytes": 1, "elementwise": 3, "parameters": 4, "fused_bytes": 5}


def markdown(grid: Grid) -> str:
    """A GitHub table, figures to the right."""
    rule = ["---" if column < grid.text_columns else "---:" for column in range(len(grid.headings))]
    lines = [grid.headings, rule, *grid.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Raw figures, a record a row: for a pair with the prefixes `baseline_` and `candidate_`."""
    result = []
    for row in rows:
        record: dict[str, Any] = {"layer": row.name}
        prefixes = ("baseline_", "candidate_") if len(row.costs) == 2 else ("",)
        for prefix, cost in zip(prefixes, row.costs, strict=True):
            record[f"{prefix}type"] = cost.type if cost else None
            record |= {f"{prefix}{name}": getattr(cost, name) if cost else None for name in FIGURES}
        if len(row.costs) == 2:
            record["macs_ratio"] = row.ratio()
        result.append(record)
    return result


def as_csv(rows: Sequence[Row]) -> str:
    """`records` as CSV."""
    table = records(rows)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, table[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return stream.getvalue()


def as_json(audits: Sequence[Audit], rows: Sequence[Row], **context: Any) -> str:
    """The audits and the rows, as one JSON object."""
    networks = []
    for audit in audits:
        record = asdict(replace(audit, observed={}))
        del record["observed"]
        sums = {"macs": audit.macs, "train_macs": audit.train_macs, "paper_sum": audit.paper_sum}
        networks.append({**record, **sums})
    return json.dumps({**context, "networks": networks, "rows": records(rows)}, indent=1) + "\n"


def rich_table(grid: Grid, width: int) -> "Table":
    """For a terminal of so many characters a line; what does not fit is left out and named."""
    from rich import box
    from rich.table import Table

    # A heading such as "MACs of ViT-B/16" takes two lines.
    headings = [heading.replace(" of ", "\n") for heading in grid.headings]
    widths = [
        2
        + max(
            len(line) for text in (heading, *(row[column] for row in grid.rows)) for line in text.split("\n")
        )
        for column, heading in enumerate(headings)
    ]
    kept = list(range(len(headings)))
    while grid.ranks and sum(widths[column] for column in kept) > width:
        highest = max(grid.ranks[column] for column in kept)
        if highest == 0:
            break
        kept = [column for column in kept if grid.ranks[column] != highest]
    left_out = dict.fromkeys(
        grid.headings[column].split(" of ")[0] for column in range(len(headings)) if column not in kept
    )
    table = Table(
        title=grid.caption, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
    )
    if left_out:
        table.caption = f"not shown on so short a line: {', '.join(left_out)}; --format csv has all"
    for column in kept:
        table.add_column(
            headings[column], justify="left" if column < grid.text_columns else "right", no_wrap=True
        )
    for row in grid.rows:
        table.add_row(*(row[column] for column in kept))
    return table
