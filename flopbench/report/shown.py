"""What shows itself alike wherever it is looked at: tables and sentences in terminals, text and notebooks."""

import io
import os
import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flopbench.report.table import Table
from flopbench.report.text import printable, visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

WIDE = 200
"""Columns that are enough for the widest table: what is written to a file or pipe has them."""


class Shown:
    """What prints itself as tables and lines: by `print`, by rich, or as the last line of a notebook's cell.

    Whoever derives from it says in `shown` what there is to see. A dataclass that does is one with
    `repr=False`.
    """

    def shown(self) -> Iterable[Table | str]:
        """The tables and, each on a line of its own, the sentences, in the order of reading."""
        raise NotImplementedError

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        for part in self.shown():
            yield part if isinstance(part, Table) else Text(printable(part))

    def __str__(self) -> str:
        from rich.console import Console

        terminal = sys.stdout is not None and sys.stdout.isatty()
        told = terminal or os.environ.get("COLUMNS", "").strip("0")
        width = shutil.get_terminal_size().columns if told else WIDE
        file = io.StringIO()
        Console(file=file, width=width, color_system=None, force_jupyter=False).print(self)
        return visible("\n".join(line.rstrip() for line in file.getvalue().splitlines()))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from flopbench.report.page import html_templates

        parts = [part if isinstance(part, Table) else printable(part) for part in self.shown()]
        return html_templates().get_template("shown.html.j2").render(parts=parts)
