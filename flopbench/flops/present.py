"""Costs and audits as tables, and as raw figures for pipes."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from flopbench.flops.audit import Audit
from flopbench.flops.tree import Row
from flopbench.report import text
from flopbench.report.table import Column, Table, words

# Attribute of a cost → its header and its rank on narrow terminals.
_FIGURES: dict[str, tuple[str, int | None]] = {
    "macs": ("MACs", 1),
    "elementwise": ("elementwise", 4),
    "bytes": ("bytes", 2),
    "bytes_read": ("", None),
    "bytes_written": ("", None),
    "fused_bytes": ("bytes, fused", 6),
    "parameters": ("parameters", 5),
}


def four_digits(value: int) -> str:
    """Counts that halve or not are told apart by four digits: `17.56 G`."""
    return text.count(value, 4)


def audit_table(audits: Sequence[Audit], labels: Sequence[str], *, paper: bool = False) -> Table:
    """Each network's counters below each other, with what each left uncounted."""
    rows = []
    for label, audit in zip(labels, audits, strict=True):
        for pass_, counts in (("forward", audit.forward), ("backward", audit.backward)):
            for counter, counted in counts.items():
                rest = ", ".join(f"{name} ×{count}" for name, count in counted.uncounted.items()) or "nothing"
                rows.append((label, pass_, counter, rest, counted.macs, counted.coverage))
        if paper and audit.published is not None:
            sums = f"nothing: {text.exact(audit.published)} MACs + {text.exact(audit.elementwise)}"
            rows.append((label, "forward", "paper's sum", sums, audit.paper_sum, None))
    columns = (
        words("pass"),
        words("counter"),
        words("left uncounted", rank=2, wraps=True),
        Column("MACs", write=text.exact),
        Column("coverage", write=text.coverage),
    )
    return Table.of("Counts", columns, rows, group=words("network"))


def row_table(rows: Sequence[Row], labels: Sequence[str], caption: str) -> Table:
    """Layers or operators of a network, with its share of the MACs; or of a pair, with the ratio of MACs.

    The figures of a pair have the prefixes `baseline_` and `candidate_` in CSV and JSON.
    """
    sides = {"baseline_": f"\n{labels[0]}", "candidate_": f"\n{labels[1]}"} if len(labels) == 2 else {"": ""}
    columns = [words("layer"), words("type", rank=3, wraps=True)]
    for figure, (header, rank) in _FIGURES.items():
        if not any(getattr(cost, figure) for row in rows for cost in row.costs if cost):
            rank = None
        columns += [
            Column(header + label, side + figure, four_digits, rank=rank) for side, label in sides.items()
        ]
        if figure == "macs" and len(labels) == 2:
            columns.append(Column("ratio", "macs_ratio", text.times))
        elif figure == "macs":
            columns.append(Column("share", "macs_share", text.coverage))
    records = []
    for row in rows:
        record: dict[str, Any] = {"layer": row.name, "type": row.type, "macs_ratio": row.ratio()}
        for side, cost in zip(sides, row.costs, strict=True):
            record |= {side + figure: getattr(cost, figure) if cost else None for figure in _FIGURES}
        records.append(record)
    whole = records[-1].get("macs")
    for record in records:
        record["macs_share"] = record["macs"] / whole if whole and record["macs"] is not None else None
    return Table(caption, columns, records)


def networks(audits: Sequence[Audit]) -> list[dict[str, Any]]:
    """The audits with their sums, as JSON holds them."""
    records = []
    for audit in audits:
        record = asdict(replace(audit, observed={}))
        del record["observed"]
        sums = {"macs": audit.macs, "train_macs": audit.train_macs, "paper_sum": audit.paper_sum}
        records.append({**record, **sums})
    return records
