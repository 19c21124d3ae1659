"""Tables: one definition of the columns for the terminal, Markdown and the page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flopbench.errors import FlopbenchError
from flopbench.report import FORMATS, text

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.table import Table

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: what it shows of a row, what it sorts by, and how early it goes on a narrow terminal.

    `rank` 0 stays always; the highest goes first.
    """

    header: str
    show: Callable[[Row], str]
    sort: Callable[[Row], float | str | None]
    numeric: bool = True
    rank: int = 0
    wraps: bool = False

    @property
    def name(self) -> str:
        """The header on one line."""
        return self.header.replace("\n", " ")


def _figure(header: str, key: str, show: Callable[[Any], str], rank: int = 0) -> Column:
    return Column(header, lambda row: show(row[key]), lambda row: row[key], rank=rank)


def _name(header: str, key: str, rank: int = 0) -> Column:
    return Column(header, lambda row: text.printable(row[key]), lambda row: str(row[key]), False, rank)


MODEL_COLUMNS = (
    _name("model", "label"),
    _name("image", "image_size"),
    _figure("parameters", "parameters", text.count),
    _figure("MACs", "macs", text.count),
    _figure("MACs ratio", "macs_ratio", text.factor),
    _figure("invariance error", "invariance_error", text.error),
)

CELL_COLUMNS = (
    _name("run", "run"),
    _name("candidate", "candidate_label"),
    _name("baseline", "baseline_label", rank=8),
    _name("image", "image_size"),
    _figure("batch", "batch_size", str),
    _name("pass", "pass"),
    _name("dtype", "dtype"),
    _name("mode", "mode"),
    _name("attention", "attention"),
    _name("memory format", "memory_format"),
    _figure("time\nbaseline", "baseline_seconds", text.seconds, rank=3),
    _figure("time\ncandidate", "candidate_seconds", text.seconds, rank=3),
    _figure("images/s\nbaseline", "baseline_throughput", text.significant, rank=4),
    _figure("images/s\ncandidate", "candidate_throughput", text.significant, rank=4),
    Column(
        "speed-up\n[95 % interval]",
        lambda row: text.interval(row["speedup"], row["speedup_low"], row["speedup_high"]),
        lambda row: row["speedup"],
    ),
    _figure("MACs\nratio", "macs_ratio", text.factor, rank=6),
    _figure("realised\nshare", "realised_share", text.percent, rank=2),
    _figure("memory\nbaseline", "baseline_peak_bytes", text.size, rank=5),
    _figure("memory\ncandidate", "candidate_peak_bytes", text.size, rank=5),
    _name("flags", "flags", rank=7),
)

FAILURE_COLUMNS = (
    *(column for column in CELL_COLUMNS[:10] if column.header != "baseline"),
    _name("status", "status"),
    Column("reason", lambda row: text.printable(row["reason"]), lambda row: row["reason"], False, wraps=True),
)

# A reason is a sentence: it wraps, but not into a column narrower than this.
_REASON_WIDTH = 24

_MODEL_KEYS = ("label", "image_size", "parameters", "macs", "macs_ratio", "invariance_error")

# What every cell of most runs has in common; shown only where it differs within a table.
_OFTEN_THE_SAME = {"run", "image", "dtype", "attention", "memory format"}


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
        return markdown_table(measured(frame), CELL_COLUMNS)
    raise FlopbenchError(f"--format {fmt!r}: choose one of {', '.join(FORMATS)}")


def measured(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The cells that ended well, one row each.

    Replicates of a cell become one row: medians, the geometric mean of the speed-ups, and an interval
    from the lowest to the highest end of theirs, which holds what differs from process to process.
    """
    import numpy as np
    import pandas as pd

    if frame.empty:
        return frame
    done = frame[(frame["status"] == "ok") & frame["speedup"].notna()]
    if not done.duplicated(["run", "cell"]).any():
        return done.reset_index(drop=True)
    rows = []
    for _, group in done.groupby(["run", "cell"], sort=False):
        row = group.iloc[0].copy()
        for key in group.columns:
            if key.endswith(("_seconds", "_throughput", "_peak_bytes")):
                row[key] = group[key].median()
        row["speedup"] = float(np.exp(np.log(group["speedup"].astype(float)).mean()))
        row["speedup_low"], row["speedup_high"] = group["speedup_low"].min(), group["speedup_high"].max()
        row["realised_share"] = (row["speedup"] - 1) / (row["macs_ratio"] - 1) if row["macs_ratio"] else None
        row["invariance_error"] = group["invariance_error"].max()
        row["flags"] = ", ".join(
            dict.fromkeys(flag for flags in group["flags"] for flag in flags.split(", ") if flag)
        )
        rows.append(row)
    return pd.DataFrame(rows).infer_objects().reset_index(drop=True)


def failures(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The cells that have no speed-up, with their reasons."""
    return frame if frame.empty else frame[frame["status"] != "ok"].reset_index(drop=True)


def models(frame: "pd.DataFrame") -> "pd.DataFrame":
    """One row a model and image size: parameters, MACs; of candidates MACs ratio, worst invariance error."""
    import pandas as pd

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in frame.to_dict("records"):
        for role in ("baseline", "candidate"):
            if text.is_missing(row[f"{role}_parameters"]):
                continue
            label = row[f"{role}_label"]
            found = rows.setdefault(
                (label, row["image_size"]),
                {
                    "label": label,
                    "image_size": row["image_size"],
                    "parameters": row[f"{role}_parameters"],
                    "macs": row[f"{role}_macs"],
                    "macs_ratio": None,
                    "invariance_error": None,
                },
            )
            if role == "candidate":
                found["macs_ratio"] = row["macs_ratio"]
                errors = [found["invariance_error"], row["invariance_error"]]
                found["invariance_error"] = max((e for e in errors if not text.is_missing(e)), default=None)
    return pd.DataFrame(list(rows.values()), columns=list(_MODEL_KEYS))


def shown_columns(frame: "pd.DataFrame", columns: Sequence[Column]) -> list[Column]:
    """The columns that say something about `frame`: not all empty, and not one of those that never differ."""
    rows = frame.to_dict("records")
    shown = []
    for column in columns:
        values = {column.show(row) for row in rows}
        same = len(values) == 1 and column.header in _OFTEN_THE_SAME
        if not same and values - {"", text.MISSING}:
            shown.append(column)
    return shown


def markdown_table(frame: "pd.DataFrame", columns: Sequence[Column]) -> str:
    """A GitHub-flavoured table, every cell escaped."""
    shown = shown_columns(frame, columns)
    if not shown:
        return "No cell was measured."
    lines = [
        "| " + " | ".join(text.markdown_escape(column.name) for column in shown) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in shown) + "|",
    ]
    lines += [
        "| " + " | ".join(text.markdown_escape(column.show(row)) for column in shown) + " |"
        for row in frame.to_dict("records")
    ]
    return "\n".join(lines)


class FittingTable:
    """A rich renderable that leaves columns out, the least important first, until it fits the terminal.

    Where not even the essential ones fit, each row becomes lines of `header: value`.
    """

    def __init__(self, title: str, frame: "pd.DataFrame", columns: Sequence[Column]) -> None:
        self.title = title
        self.rows: list[Row] = frame.to_dict("records")
        self.columns = shown_columns(frame, columns)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.measure import Measurement
        from rich.text import Text

        columns = list(self.columns)
        while True:
            table = self._table(columns)
            if Measurement.get(console, options.update(width=10_000), table).minimum <= options.max_width:
                break
            dropped = max(column.rank for column in columns)
            if dropped == 0:
                yield from self._stacked()
                return
            columns = [column for column in columns if column.rank != dropped]
        yield table
        if hidden := [column.name for column in self.columns if column not in columns]:
            yield Text(
                f"left out to fit: {', '.join(hidden)}; the report and --format csv have all", style="dim"
            )

    def _table(self, columns: Sequence[Column]) -> "Table":
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
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
            heads = [column for column in self.columns if not column.numeric or column.header == "batch"]
            yield Text(
                " ".join(f"b{c.show(row)}" if c.numeric else c.show(row) for c in heads if c.rank == 0)
            )
            for column in self.columns:
                if column not in heads and column.rank <= 2 and column.show(row) != text.MISSING:
                    yield Text(
                        f"  {column.name.partition(' [')[0]}: {column.show(row)}", style=_style(column, row)
                    )


def _style(column: Column, row: Row) -> str:
    """Colour only where the interval says something: green beyond 1, red below."""
    if not column.header.startswith("speed-up") or text.is_missing(row["speedup"]):
        return ""
    return "green" if row["speedup_low"] > 1 else "red" if row["speedup_high"] < 1 else "yellow"


def summary_table(frame: "pd.DataFrame") -> "Group":
    """What a run ends with in the terminal: models, measurements, and the cells without a speed-up."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    if len(facts := models(frame)):
        parts.append(FittingTable("Models", facts, MODEL_COLUMNS))
    if len(done := measured(frame)):
        parts.append(
            FittingTable("Speed-ups (time of the baseline / time of the candidate)", done, CELL_COLUMNS)
        )
    else:
        parts.append(Text("No cell was measured."))
    if len(failed := failures(frame)):
        parts.append(FittingTable("Cells without a speed-up", failed, FAILURE_COLUMNS))
    return Group(*parts)
