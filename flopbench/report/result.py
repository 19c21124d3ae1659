"""What was measured, as one object: its figures, tables, sentences, pictures and report."""

import shutil
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flopbench.errors import FlopbenchError, brief
from flopbench.report.cells import Row, rows_of
from flopbench.report.findings import Answer
from flopbench.report.render import ReportFiles, answers_of, checked_ids, render_report
from flopbench.report.shown import Shown
from flopbench.report.table import Table
from flopbench.report.tables import summary
from flopbench.results import UNRESOLVED, CellRecord, Run, to_frame

if TYPE_CHECKING:
    import pandas as pd

    from flopbench.report.pictures.figure import Figure

# The pictures that say most, in this order; the others come after them.
_TELLING = ("side-by-side", "speedup-against-width", "speedup-against-batch", "speedups")


class Result(Shown):
    """One run, or several side by side, as `run_suite`, `benchmark` and `load_run` give it.

    It prints as its tables and the sentences that answer what came of the saved MACs, in a notebook too. What
    it shows is what the run folders held when it was first looked at.

        result = flopbench.load_run("results/vit-cpu-20261127-041710")
        print(result)
        result.frame()[["candidate_label", "batch_size", "speedup"]]
        result.plot().savefig("speedup.png")

    Attributes:
        runs: the runs, each a folder on disk. One that was measured into no folder of the user's is kept as
            long as its run is in use, or for good by `save`.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs: tuple[Run, ...] = tuple(runs)
        checked_ids(self.runs)

    @property
    def records(self) -> list[CellRecord]:
        """A record per cell and replicate of each run, with every sample."""
        return [record for run in self.runs for record in run.records()]

    def frame(self) -> "pd.DataFrame":
        """A row per cell, replicate and run: see `flopbench.results.to_frame` for the columns."""
        return to_frame(self.runs)

    @cached_property
    def _rows(self) -> list[Row]:
        return rows_of(self.frame())

    @property
    def answers(self) -> list[Answer]:
        """What each run says in plain words."""
        return answers_of(self.runs, self._rows)

    def shown(self) -> list[Table | str]:
        """The tables, and the sentences that they come to."""
        return [*self.tables(), *(line for answer in self.answers for line in answer.in_short.split("\n"))]

    def tables(self) -> list[Table | str]:
        """The tables alone; a line says so where no cell has a speed-up."""
        return summary(self._rows)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the pictures that there is data for, the most telling first."""
        return tuple(self._drawn())

    def plot(self, name: str | None = None) -> "Figure":
        """One of the report's pictures as a matplotlib figure, which a notebook shows as it is.

        Args:
            name: one of `pictures`; by default the first of them.

        Raises:
            FlopbenchError: there is none of that name, or no cell has a speed-up to draw.
        """
        drawn = self._drawn()
        if not drawn:
            raise FlopbenchError(f"there is no picture: no cell has a speed-up{self._why_not()}")
        name = name or next(iter(drawn))
        if name not in drawn:
            raise FlopbenchError(f"there is no picture {brief(name)}; there is {', '.join(drawn)}")
        return drawn[name]

    def _why_not(self) -> str:
        """Why cells have no speed-up, by the first of each status."""
        said: dict[str, str] = {}
        for record in self.records:
            status = UNRESOLVED if record.unresolved else record.status
            said.setdefault(status, f"{status}, {record.unresolved or record.reason}")
        return f": {'; '.join(said.values())}" if said else ""

    def _drawn(self) -> "dict[str, Figure]":
        from flopbench.report.pictures import draw

        rank = {name: place for place, name in enumerate(_TELLING)}
        drawn = sorted(draw(self.runs, self._rows), key=lambda drawing: rank.get(drawing.name, len(rank)))
        return {drawing.name: drawing.figure for drawing in drawn}

    def report(self, path: str | Path = "reports") -> ReportFiles:
        """Write the report as `flopbench report` does: Markdown, a self-contained page, data and pictures.

        Args:
            path: where the report's folder goes; that is called after the run.

        Returns:
            The paths of its files, e.g. `.html`.

        Raises:
            FlopbenchError: two of the runs have the same id.
        """
        return render_report(self.runs, Path(path))

    def save(self, path: str | Path) -> Path:
        """Copy the raw data, for `load_run` and `flopbench report` to read again.

        Args:
            path: the new run folder; of several runs, a folder with one for each.

        Returns:
            The folder.

        Raises:
            FlopbenchError: it exists already.
        """
        path = Path(path)
        if path.exists():
            raise FlopbenchError(f"{path} exists already: name a new folder")
        folders: Sequence[Path] = [path] if len(self.runs) == 1 else [path / run.info.id for run in self.runs]
        for run, folder in zip(self.runs, folders, strict=True):
            shutil.copytree(run.path, folder)
        return path
