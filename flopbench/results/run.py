"""Runs on disk: `run.json` says what was run on what, `cells.jsonl` has a line per measured cell.

A cell that was measured again (a resumed run) has its later line count.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from flopbench.errors import FlopbenchError
from flopbench.results.files import read_record
from flopbench.results.folder import RecordsFolder
from flopbench.results.lines import append_line, read_lines, set_torn_line_aside
from flopbench.results.profiles import Calibration, ProfileRecord
from flopbench.results.records import CellRecord, FrontierRecord, RunInfo


class Run(RecordsFolder[RunInfo, CellRecord]):
    """The folder of a run."""

    what, done = "run", "measured"
    info_file, lines_file = "run.json", "cells.jsonl"
    info_kind, line_kind = RunInfo, CellRecord

    def append_frontier(self, record: FrontierRecord) -> None:
        """Add a frontier; it is on disk when this returns."""
        append_line(self.path / "frontier.jsonl", record)

    def frontiers(self) -> list[FrontierRecord]:
        """The memory frontiers found, if the suite asked for them; damaged lines as in `lines`."""
        path = self.path / "frontier.jsonl"
        return list(read_lines(path, FrontierRecord)) if path.is_file() else []

    def set_torn_lines_aside(self) -> None:
        """Move unfinished last lines to `cells.torn` and `frontier.torn`; whole ones stay."""
        super().set_torn_lines_aside()
        set_torn_line_aside(self.path / "frontier.jsonl", FrontierRecord)

    def records(self) -> list[CellRecord]:
        """The last record of each cell and replicate, in the order in which the cells first appeared."""
        latest: dict[tuple[str, int], CellRecord] = {}
        for record in self.lines():
            latest[record.key] = record
        return list(latest.values())

    def calibration(self) -> Calibration | None:
        """What `calibration.json` says; None where the run has none.

        Raises:
            FlopbenchError: it is damaged.
        """
        file = self.path / "calibration.json"
        return read_record(file, Calibration) if file.is_file() else None

    def profiles(self) -> list[ProfileRecord]:
        """What the `profile*.json` files say, by file name.

        Raises:
            FlopbenchError: one is damaged.
        """
        return [read_record(file, ProfileRecord) for file in sorted(self.path.glob("profile*.json"))]


def merge_runs(runs: Sequence[Run], path: Path, alike: Iterable[str]) -> Run:
    """One run folder with the records of several parts of one run (`--shard`).

    Args:
        runs: at least two.
        path: of the new folder.
        alike: fields of the environment that have to be the same.

    Raises:
        FlopbenchError: fewer than two, of different suites or profiles, from unlike machines, or two of
            them hold the same cell.
    """
    if len(runs) < 2:
        raise FlopbenchError(f"merge takes at least two runs, got {len(runs)}")
    first = runs[0].info
    owner: dict[tuple[str, int], Path] = {}
    for run in runs:
        differences = first.environment.differences(run.info.environment, alike)
        for field in ("suite_digest", "profile"):
            if getattr(first, field) != getattr(run.info, field):
                differences.append(f"{field} differs")
        if differences:
            raise FlopbenchError(f"cannot merge {run.info.id} with {first.id}: {'; '.join(differences)}")
        for record in run.records():
            if record.key in owner:
                raise FlopbenchError(
                    f"cannot merge: {record.cell.id} is in both {owner[record.key]} and {run.path}"
                )
            owner[record.key] = run.path
    merged = Run.create(path, first.model_copy(update={"id": path.name, "shard": None}))
    for run in runs:
        for record in run.records():
            merged.append(record)
        for frontier in run.frontiers():
            merged.append_frontier(frontier)
    return merged
