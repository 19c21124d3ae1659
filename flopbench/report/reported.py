"""What was measured, as one object: its figures, tables, sentences, pictures and report."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from flopbench.errors import FlopbenchError, brief
from flopbench.report.findings import Answer
from flopbench.report.page import FlagGroup, Origin, Page, ReportFiles, environment_table, write_page
from flopbench.report.shown import Shown
from flopbench.report.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from flopbench.report.pictures import Drawing
    from flopbench.report.pictures.figure import Figure


class Reported(Shown):
    """What is on disk of one execution, or of several side by side, as every command and function gives it.

    It prints as its tables and the sentences that they come to, in a notebook too. Whoever derives from it
    says what these are, and what is drawn.
    """

    telling: ClassVar[Sequence[str]] = ()
    """The pictures that say most, in this order; the others come after them."""

    def frame(self) -> "pd.DataFrame":
        """The figures as data."""
        raise NotImplementedError

    @property
    def answers(self) -> Sequence[Answer]:
        """What it says in plain words."""
        raise NotImplementedError

    def tables(self) -> Sequence[Table | str]:
        """The tables alone; a line says so where there is nothing to show."""
        raise NotImplementedError

    def drawings(self) -> "Iterable[Drawing | None]":
        """Each picture drawn in the style that is set (`pictures.style`), or None where it has no data."""
        raise NotImplementedError

    def page(self) -> Page:
        """What its report consists of."""
        raise NotImplementedError

    def _page(
        self, title: str, origins: Sequence[Origin], legend: str, flags: Sequence[FlagGroup] = ()
    ) -> Page:
        """A page of its answers, tables and pictures, and of where it was executed."""
        from flopbench.report.pictures import draw_all

        tables = [table for table in self.tables() if isinstance(table, Table)]
        return Page(
            title=title,
            origins=origins,
            answers=self.answers,
            tables=[*tables, environment_table(origins)],
            pictures=draw_all(self.drawings),
            legend=legend,
            flags=flags,
        )

    def markdown(self) -> str:
        """The tables for a pipe."""
        parts = (part if isinstance(part, str) else part.markdown() for part in self.tables())
        return "\n\n".join(part for part in parts if part)

    def formatted(self, fmt: str) -> str:
        """The figures as text for a pipe: all of them as JSON or CSV, the tables as Markdown.

        Raises:
            FlopbenchError: another format.
        """
        from flopbench.report.tables import format_frame

        return self.markdown() if fmt == "markdown" else format_frame(self.frame(), fmt)

    def shown(self) -> list[Table | str]:
        """The tables, and the sentences that they come to."""
        return [*self.tables(), *(line for answer in self.answers for line in answer.in_short.split("\n"))]

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the pictures that there is data for, the most telling first."""
        return tuple(self._drawn())

    def plot(self, name: str | None = None) -> "Figure":
        """One of the report's pictures as a matplotlib figure, which a notebook shows as it is.

        Args:
            name: one of `pictures`; by default the first of them.

        Raises:
            FlopbenchError: there is none of that name, or nothing to draw.
        """
        drawn = self._drawn()
        if not drawn:
            raise FlopbenchError(f"there is no picture: {self.nothing_drawn()}")
        name = name or next(iter(drawn))
        if name not in drawn:
            raise FlopbenchError(f"there is no picture {brief(name)}; there is {', '.join(drawn)}")
        return drawn[name]

    def nothing_drawn(self) -> str:
        """Why there is no picture at all."""
        return "there is nothing to draw"

    def _drawn(self) -> "dict[str, Figure]":
        from flopbench.report.pictures import draw

        rank = {name: place for place, name in enumerate(self.telling)}
        drawn = sorted(draw(self.drawings), key=lambda drawing: rank.get(drawing.name, len(rank)))
        return {drawing.name: drawing.figure for drawing in drawn}

    def report(self, path: str | Path = "reports") -> ReportFiles:
        """Write the report as `flopbench report` does: Markdown, a self-contained page, data and pictures.

        Args:
            path: where the report's folder goes; that is called after what the report is of.

        Returns:
            The paths of its files, e.g. `.html`.
        """
        return write_page(self.page(), self.frame(), Path(path))
