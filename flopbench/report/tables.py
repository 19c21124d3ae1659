"""Tables: one definition of the columns for the terminal, Markdown and the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flopbench.cells import AXES, Axis
from flopbench.errors import FlopbenchError
from flopbench.report import FORMATS, text
from flopbench.report.cells import Row, Rows, failures, measured, models, rows_of, verdict

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.table import Table


@dataclass(frozen=True)
class Column:
    """One column: what it shows of a row, and what it sorts by.

    A `key` says what the row is about, and is there however narrow the terminal; the other columns
    come in the order of their `rank` there. A column that `wraps` holds sentences.
    """

    header: str
    show: Callable[[Row], str]
    sort: Callable[[Row], float | str | None]
    numeric: bool = True
    rank: int = 0
    key: bool = False
    wraps: bool = False

    @property
    def name(self) -> str:
        """The header on one line."""
        return self.header.replace("\n", " ")


def _figure(header: str, key: str, show: Callable[[Any], str], rank: int = 0) -> Column:
    return Column(header, lambda row: show(row[key]), lambda row: row[key], rank=rank)


def _name(header: str, key: str, rank: int | None = None) -> Column:
    return Column(
        header,
        lambda row: text.printable(row[key]),
        lambda row: str(row[key]),
        numeric=False,
        rank=rank or 0,
        key=rank is None,
    )


def _axis(axis: Axis) -> Column:
    return Column(
        axis.label,
        lambda row: text.MISSING if row[axis.name] is None else text.printable(row[axis.name]),
        lambda row: row[axis.name],
        numeric=axis.numeric,
        key=True,
    )


MODEL_COLUMNS = (
    _name("model", "label"),
    _name("image", "image_size"),
    _figure("parameters", "parameters", text.count),
    _figure("MACs", "macs", text.count),
    _figure("MACs ratio", "macs_ratio", text.factor),
    _figure("invariance error", "invariance_error", text.error),
)

_WHAT_COLUMNS = (
    _name("run", "run"),
    _name("candidate", "candidate_label"),
    *map(_axis, AXES.values()),
)

CELL_COLUMNS = (
    *_WHAT_COLUMNS,
    Column(
        "speed-up\n[95 % interval]",
        lambda row: text.interval(row["speedup"], row["speedup_low"], row["speedup_high"]),
        lambda row: row["speedup"],
    ),
    _figure("realised\nshare", "realised_share", text.percent, rank=2),
    _figure("MACs\nratio", "macs_ratio", text.factor, rank=6),
    _figure("time\nbaseline", "baseline_seconds", text.seconds, rank=3),
    _figure("time\ncandidate", "candidate_seconds", text.seconds, rank=3),
    _figure("images/s\nbaseline", "baseline_throughput", text.significant, rank=4),
    _figure("images/s\ncandidate", "candidate_throughput", text.significant, rank=4),
    _figure("memory\nbaseline", "baseline_peak_bytes", text.size, rank=5),
    _figure("memory\ncandidate", "candidate_peak_bytes", text.size, rank=5),
    _name("baseline", "baseline_label", rank=8),
    _name("flags", "flags", rank=7),
)

FAILURE_COLUMNS = (
    *_WHAT_COLUMNS,
    _name("status", "status"),
    Column("reason", lambda row: text.printable(row["reason"]), lambda row: row["reason"], False, wraps=True),
)

# A reason is a sentence: it wraps, but not into a column narrower than this.
_REASON_WIDTH = 24

# What every cell of most runs has in common; shown only where it differs within a table.
_OFTEN_THE_SAME = {"run", *(axis.label for axis in AXES.values() if not axis.always_shown)}


def format_frame(frame: "pd.DataFrame", fmt: str) -> str:
    """A run's frame (`results.to_frame`) as text for a pipe.

    JSON and CSV hold every column and row; Markdown is the readable table.

    Raises:
        FlopbenchError: a format that is none of json, csv, markdown.
    """
    if fmt == "json":
        return frame.to_json(orient="records", indent=1, force_ascii=False, double_precision=15) or "[]"
    if fmt == "csv":
        return frame.to_csv(index=False, lineterminator="\n").rstrip("\n")
    if fmt == "markdown":
        return markdown_table(measured(rows_of(frame)), CELL_COLUMNS)
    raise FlopbenchError(f"--format {fmt!r}: choose one of {', '.join(FORMATS)}")


def shown_columns(rows: Rows, columns: Sequence[Column]) -> list[Column]:
    """The columns that say something about `rows`: not all empty, nor the same, nor told by another."""
    shown = []
    for column in columns:
        values = {column.show(row) for row in rows}
        same = len(values) == 1 and column.header in _OFTEN_THE_SAME
        told = column.header == "baseline" and all(map(_baseline_is_told, rows))
        if not same and not told and values - {"", text.MISSING}:
            shown.append(column)
    return shown


def _baseline_is_told(row: Row) -> bool:
    """Whether the candidate's label says its baseline: E(X) against X."""
    return row["candidate_label"].endswith(f"({row['baseline_label']})")


def markdown_table(rows: Rows, columns: Sequence[Column]) -> str:
    """A GitHub-flavoured table, every cell escaped."""
    shown = shown_columns(rows, columns)
    if not shown:
        return "No cell was measured."
    lines = [
        "| " + " | ".join(text.markdown_escape(column.name) for column in shown) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in shown) + "|",
    ]
    lines += [
        "| " + " | ".join(text.markdown_escape(column.show(row)) for column in shown) + " |" for row in rows
    ]
    return "\n".join(lines)


class FittingTable:
    """A rich renderable that becomes several tables, one below the other, where the terminal is narrow.

    Each repeats the columns that say what a row is about; the most important figures come first.
    Where not even those columns fit, each row becomes lines of `header: value`.
    """

    def __init__(self, title: str, rows: Rows, columns: Sequence[Column]) -> None:
        self.title = title
        self.rows = rows
        self.columns = shown_columns(rows, columns)
        self.keys = [column for column in self.columns if column.key]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.measure import Measurement

        def fits(columns: Sequence[Column]) -> bool:
            table = self._table("", columns)
            return Measurement.get(console, options.update(width=10_000), table).minimum <= options.max_width

        if fits(self.columns):
            yield self._table(self.title, self.columns)
            return
        figures = [column for column in self.columns if not column.key]
        blocks: list[list[Column]] = []
        for rank in sorted({column.rank for column in figures}):
            group = [column for column in figures if column.rank == rank]
            if blocks and fits([*self.keys, *blocks[-1], *group]):
                blocks[-1] += group
            elif fits([*self.keys, *group]):
                blocks.append(group)
            else:
                yield from self._stacked()
                return
        for number, block in enumerate(blocks):
            yield self._table("" if number else self.title, [*self.keys, *block])

    def _table(self, title: str, columns: Sequence[Column]) -> "Table":
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for column in columns:
            lines = [line for row in self.rows for line in (column.show(row), *column.header.split("\n"))]
            width = max(map(cell_len, lines))
            table.add_column(
                column.header,
                justify="right" if column.numeric else "left",
                min_width=min(width, _REASON_WIDTH) if column.wraps else width,
            )
        for row in self.rows:
            # Text, not markup: names may hold brackets.
            table.add_row(*(Text(column.show(row), style=_style(column, row)) for column in columns))
        return table

    def _stacked(self) -> "RenderResult":
        from rich.text import Text

        yield Text(self.title, style="bold")
        for row in self.rows:
            yield Text(" ".join(f"{c.name} {c.show(row)}" if c.numeric else c.show(row) for c in self.keys))
            for column in self.columns:
                if not column.key and column.show(row) not in ("", text.MISSING):
                    yield Text(
                        f"  {column.name.partition(' [')[0]}: {column.show(row)}", style=_style(column, row)
                    )


def _style(column: Column, row: Row) -> str:
    """Colour only where the interval says something: green beyond 1, red below."""
    if not column.header.startswith("speed-up"):
        return ""
    return {"faster": "green", "level": "yellow", "slower": "red"}[verdict(row)]


def summary_table(frame: "pd.DataFrame") -> "Group":
    """What a run ends with in the terminal: models, measurements, and the cells without a speed-up."""
    from rich.console import Group
    from rich.text import Text

    rows = rows_of(frame)
    parts: list[Any] = []
    if facts := models(rows):
        parts.append(FittingTable("Models", facts, MODEL_COLUMNS))
    if cells := measured(rows):
        parts.append(
            FittingTable("Speed-ups (time of the baseline / time of the candidate)", cells, CELL_COLUMNS)
        )
    else:
        parts.append(Text("No cell was measured."))
    if failed := failures(rows):
        parts.append(FittingTable("Cells without a speed-up", failed, FAILURE_COLUMNS))
    return Group(*parts)
