"""Runs as one object: their cells, tables, sentences, pictures and report."""

import shutil
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flopbench.errors import FlopbenchError
from flopbench.report.cells import Row, measured, rows_of
from flopbench.report.findings import Answer
from flopbench.report.page import Page, checked_ids
from flopbench.report.render import answers_of, page_of
from flopbench.report.reported import Reported
from flopbench.report.table import Table
from flopbench.report.tables import runs_markdown, summary
from flopbench.results import UNRESOLVED, CellRecord, Run, to_frame

if TYPE_CHECKING:
    import pandas as pd

    from flopbench.report.pictures import Drawing


class Result(Reported):
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

    telling = ("side-by-side", "engines", "speedup-against-width", "speedup-against-batch", "speedups")

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs: tuple[Run, ...] = tuple(runs)
        checked_ids([run.info.id for run in self.runs])

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

    def tables(self) -> list[Table | str]:
        """The tables alone; a line says so where no cell has a speed-up."""
        return summary(self._rows)

    def markdown(self) -> str:
        """The cells that have a speed-up."""
        return runs_markdown(measured(self._rows))

    def drawings(self) -> "Iterable[Drawing | None]":
        """Every picture of runs, as `Reported.drawings`."""
        from flopbench.report.pictures import of_runs

        return of_runs(self.runs, self._rows)

    def nothing_drawn(self) -> str:
        """That no cell has a speed-up, and why, by the first of each status."""
        said: dict[str, str] = {}
        for record in self.records:
            status = UNRESOLVED if record.unresolved else record.status
            said.setdefault(status, f"{status}, {record.unresolved or record.reason}")
        return f"no cell has a speed-up{': ' if said else ''}{'; '.join(said.values())}"

    def page(self) -> Page:
        """The report of the runs."""
        return page_of(self.runs, self._rows)

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
