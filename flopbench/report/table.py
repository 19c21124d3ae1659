"""The table of every command and report: for terminals, Markdown, the page, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from flopbench.report import text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable

Tone = Literal["good", "unsure", "bad", ""]
_COLOURS: dict[Tone, str] = {"good": "green", "unsure": "yellow", "bad": "red", "": ""}

KEY = 0
"""The rank of the columns that say what a row is about."""

# A sentence wraps, but not into a column narrower than this.
_SENTENCE_WIDTH = 24


@dataclass(frozen=True)
class Column:
    """One column: what it takes from a row, and how it writes that.

    Attributes:
        header: a line break in it is one in the terminal and on the page too.
        source: an item or attribute of the row, by default the one called as the header; or what takes the
            value from the row. Of a tuple, the first is what the column sorts by.
        write: a value as people read it; a missing one is an en dash whatever this says.
        numeric: a figure, aligned to the right.
        rank: on narrow terminals KEY is always there, and the other ranks come in their order; None is for
            CSV and JSON alone.
        wraps: holds sentences, or names that may be broken.
        tone: what a row's value means.
    """

    header: str
    source: str | Callable[[Any], Any] = ""
    write: Callable[[Any], str] = text.printable
    numeric: bool = True
    rank: int | None = 1
    wraps: bool = False
    tone: Callable[[Any], Tone] = lambda row: ""

    @property
    def name(self) -> str:
        """The header on one line."""
        return self.header.replace("\n", " ")

    @property
    def css(self) -> str:
        """The class of its cells on a page."""
        return "number" if self.numeric else "sentence" if self.wraps else ""

    @property
    def key(self) -> str:
        """The column's name in CSV and JSON."""
        return self.source if self.source and isinstance(self.source, str) else self.name

    def value(self, row: Any) -> Any:
        """The raw value."""
        if callable(self.source):
            return self.source(row)
        return row[self.key] if isinstance(row, Mapping) else getattr(row, self.key)

    def sort(self, row: Any) -> Any:
        """What the row is sorted by; None where it has no value."""
        value = self.value(row)
        return value[0] if isinstance(value, tuple) else value

    def show(self, row: Any) -> str:
        """The value as people read it."""
        value = self.value(row)
        return text.MISSING if text.is_missing(value) else self.write(value)


words = partial(Column, numeric=False, rank=KEY)
"""A column of text, by default one that says what its row is about."""


@dataclass(frozen=True)
class Table:
    """Columns over rows of any kind; a rich renderable.

    On a narrow terminal it becomes several tables, one below the other, of fewer if long names are cut in the
    middle. Each repeats the columns that say what a row is about; the most important figures come first.
    Where not even those columns fit, each row becomes lines of `header: value`. Columns without any value
    are left out, but for CSV and JSON.

    Attributes:
        title: what the table shows.
        columns: from left to right.
        rows: whatever the columns take their values from.
        group: what neighbouring rows have in common: a heading in the terminal, elsewhere the first column.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Any]
    group: Column | None = None

    @classmethod
    def of(
        cls,
        title: str,
        columns: Sequence[Column],
        rows: Iterable[Sequence[Any]],
        group: Column | None = None,
    ) -> Self:
        """A table of rows that hold their values in the order of the columns, that of `group` first."""
        items = [column.key for column in ([group] if group else []) + [*columns]]
        return cls(title, columns, [dict(zip(items, row, strict=True)) for row in rows], group)

    @property
    def shown(self) -> list[Column]:
        """The columns that people see; `group` is the first of them."""
        columns = [column for column in self._all if column.rank is not None]
        return [c for c in columns if any(c.show(row) not in ("", text.MISSING) for row in self.rows)]

    @property
    def _all(self) -> list[Column]:
        return [*([self.group] if self.group else []), *self.columns]

    def records(self) -> list[dict[str, Any]]:
        """A record of raw values per row."""
        return [{column.key: column.value(row) for column in self._all} for row in self.rows]

    def json(self, **context: Any) -> str:
        """The records as `rows` of an object that holds the context too."""
        return json.dumps({**context, "rows": self.records()}, indent=1, ensure_ascii=False) + "\n"

    def csv(self) -> str:
        """The records under a line of keys; no text in it is a formula."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, [column.key for column in self._all], lineterminator="\n")
        writer.writeheader()
        for record in self.records():
            writer.writerow({key: text.defused(value) for key, value in record.items()})
        return stream.getvalue()

    def markdown(self) -> str:
        """A GitHub-flavoured table, everything escaped, without a line break at its end; "" without rows."""
        shown = self.shown
        if not shown:
            return ""
        lines = [[column.name for column in shown], *([c.show(row) for c in shown] for row in self.rows)]
        escaped = ["| " + " | ".join(map(text.markdown_escape, line)) + " |" for line in lines]
        escaped.insert(1, "|" + "|".join("---:" if column.numeric else "---" for column in shown) + "|")
        return "\n".join(escaped)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        columns = [column for column in self.shown if column is not self.group]
        ways = [self._blocks(names, options.max_width) for names in (columns, [*map(_shortened, columns)])]
        blocks = min(filter(None, ways), key=len, default=[])
        if not blocks:
            yield from self._stacked(columns)
        for number, block in enumerate(blocks):
            yield from self._whole("" if number else self.title, block)

    def _blocks(self, columns: Sequence[Column], most: int) -> list[list[Column]]:
        """The columns of the tables that are no wider than `most`; none if there is no way."""
        widths = {column: self._least_width(column) for column in columns}

        def fits(columns: Sequence[Column]) -> bool:
            # Three spaces between columns, one at either edge.
            return sum(widths[column] + 3 for column in columns) - 1 <= most

        if fits(columns):
            return [[*columns]]
        keys = [column for column in columns if column.rank == KEY]
        blocks: list[list[Column]] = []
        for rank in sorted({column.rank or KEY for column in columns} - {KEY}):
            group = [column for column in columns if column.rank == rank]
            # Columns of one rank stand together where they can.
            for part in [group] if fits([*keys, *group]) else [[column] for column in group]:
                if blocks and fits([*keys, *blocks[-1], *part]):
                    blocks[-1] += part
                else:
                    blocks.append(part)
        whole = [[*keys, *block] for block in blocks]
        return whole if all(map(fits, whole)) else []

    def _groups(self) -> Iterator[tuple[str, list[Any]]]:
        """The heading (empty without `group`) and the rows of each group."""
        groups: dict[str, list[Any]] = {}
        for row in self.rows:
            groups.setdefault(self.group.show(row) if self.group else "", []).append(row)
        yield from groups.items()

    def _least_width(self, column: Column) -> int:
        from rich.cells import cell_len

        lines = [*column.header.split("\n"), *(column.show(row) for row in self.rows)]
        width = max(map(cell_len, lines))
        return min(width, _SENTENCE_WIDTH) if column.wraps else width

    def _whole(self, title: str, columns: Sequence[Column]) -> "RenderResult":
        from rich.padding import Padding
        from rich.text import Text

        if self.group is None:
            yield self._grid(columns, self.rows, title=title)
            return
        # Equally wide tables without an edge of their own: the headers, and the rows below each heading.
        parts = [self._grid(columns, (), title=title, show_edge=False)]
        for heading, rows in self._groups():
            yield Padding(parts.pop(), (0, 0, 0, 1), expand=False) if parts else Text()
            yield Text(heading, style="bold")
            yield Padding(
                self._grid(columns, rows, show_edge=False, show_header=False), (0, 0, 0, 1), expand=False
            )
        yield Text()

    def _grid(
        self, columns: Sequence[Column], rows: Sequence[Any], *, title: str = "", **options: Any
    ) -> "RichTable":
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        # Text, not markup: names may hold brackets.
        grid = RichTable(
            title=Text(title, style="bold") if title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            **options,
        )
        for column in columns:
            grid.add_column(
                Text(column.header),
                justify="right" if column.numeric else "left",
                overflow="fold",
                no_wrap=not column.wraps,
                min_width=self._least_width(column),
            )
        for row in rows:
            grid.add_row(*(Text(column.show(row), style=_COLOURS[column.tone(row)]) for column in columns))
        return grid

    def _stacked(self, columns: Sequence[Column]) -> "RenderResult":
        from rich.text import Text

        yield Text(self.title, style="bold")
        for heading, rows in self._groups():
            if heading:
                yield Text(heading, style="bold")
            for row in rows:
                keys = [column for column in columns if column.rank == KEY]
                yield Text(" ".join(f"{c.name} {c.show(row)}" if c.numeric else c.show(row) for c in keys))
                for column in columns:
                    if column not in keys and column.show(row) not in ("", text.MISSING):
                        shown = f"  {column.name.partition(' [')[0]}: {column.show(row)}"
                        yield Text(shown, style=_COLOURS[column.tone(row)])
        yield Text()


def _shortened(column: Column) -> Column:
    """A column of names with the long ones cut in the middle, where the terminal is narrow."""
    if column.numeric or column.wraps:
        return column
    return replace(column, write=lambda value: text.shortened(column.write(value), 24))
