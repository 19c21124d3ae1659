"""Runs on disk: `run.json` says what was run on what, `cells.jsonl` holds a line a measured cell.

A cell that was measured again (a resumed run) has its later line count.
"""

import itertools
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from flopbench.errors import FlopbenchError
from flopbench.results.files import read_record, write_record
from flopbench.results.lines import append_line, locked, read_lines, set_torn_line_aside
from flopbench.results.profiles import Calibration, ProfileRecord
from flopbench.results.records import CellRecord, FrontierRecord, RunInfo

Folder = TypeVar("Folder")


class RunExistsError(FlopbenchError):
    """There is a folder where a new run was to be."""


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make the folder of a new run, whose first files are written within; where that fails, none is left.

    Raises:
        RunExistsError: there is one.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise FlopbenchError(f"{path} is a file: name a folder that is not there yet") from None
        raise RunExistsError(f"run folder {path} exists already; use --resume {path}") from None
    try:
        yield
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def make_under(results: Path | None, name: str, create: Callable[[Path], Folder]) -> Folder:
    """A new run folder under `results`, called `name`, or `name-2` and so on where that is taken.

    Args:
        results: None: a temporary folder, which lasts as long as what `create` returns.
        name: of the new folder.
        create: makes it; raises RunExistsError where there is one.
    """
    if results is None:
        temporary = Path(tempfile.mkdtemp(prefix="flopbench-"))
        folder = create(temporary / name)
        weakref.finalize(folder, shutil.rmtree, temporary, ignore_errors=True)
        return folder
    # A number for those that are begun within one second.
    for path in itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2))):
        with suppress(RunExistsError):
            return create(results / path)
    raise AssertionError("unreachable")


class Run:
    """A run folder. Reading never changes it; `append` adds one record and flushes it to disk."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def create(cls, path: Path, info: RunInfo) -> "Run":
        """Make a new run folder.

        Raises:
            RunExistsError: the folder exists already.
        """
        with made_folder(path):
            write_record(path / "run.json", info)
            (path / "cells.jsonl").touch()
        return cls(path, info)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open an existing run folder.

        Raises:
            FlopbenchError: it is no run, or of a schema this version does not read.
        """
        file = path / "run.json"
        if not file.is_file():
            raise FlopbenchError(f"{path} is not a run: it has no run.json")
        return cls(path, read_record(file, RunInfo))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within it, no other process measures this run. The lock ends with its process, however that ends.

        Raises:
            FlopbenchError: another process measures it.
        """
        with locked(self.path / "run.json", f"{self.path} is being measured by another flopbench"):
            yield

    def append(self, record: CellRecord) -> None:
        """Add a record; it is on disk when this returns."""
        append_line(self.path / "cells.jsonl", record)

    def append_frontier(self, record: FrontierRecord) -> None:
        """Add a frontier; it is on disk when this returns."""
        append_line(self.path / "frontier.jsonl", record)

    def frontiers(self) -> list[FrontierRecord]:
        """The memory frontiers found, if the suite asked for them; damaged lines as in `lines`."""
        path = self.path / "frontier.jsonl"
        return list(read_lines(path, FrontierRecord)) if path.is_file() else []

    def lines(self) -> Iterator[CellRecord]:
        """Every record in the order of writing, later measurements of a cell included.

        A damaged line is passed over with a warning: it costs its own cell, and no other.

        Raises:
            FlopbenchError: the file cannot be read, or a line is of a newer schema.
        """
        path = self.path / "cells.jsonl"
        if not path.is_file():
            raise FlopbenchError(f"{self.path} is not a run: it has no cells.jsonl")
        yield from read_lines(path, CellRecord)

    def set_torn_lines_aside(self) -> None:
        """Move unfinished last lines to `cells.torn` and `frontier.torn`; whole ones stay."""
        for name, kind in (("cells", CellRecord), ("frontier", FrontierRecord)):
            set_torn_line_aside(self.path / f"{name}.jsonl", kind)

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
