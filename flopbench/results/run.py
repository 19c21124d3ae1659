"""Runs on disk: `run.json` says what was run on what, `cells.jsonl` holds a line a measured cell.

The raw data is append-only: a line is written and flushed as soon as its cell is done, and nothing
ever rewrites it. A cell that was measured again (a resumed run) has its later line count.
"""

import fcntl
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from flopbench.errors import FlopbenchError
from flopbench.frozen import Frozen
from flopbench.results.files import (
    Record,
    as_json,
    is_newer,
    read_record,
    what_is_wrong,
    write_atomically,
    write_record,
)
from flopbench.results.profiles import Calibration, ProfileRecord
from flopbench.results.records import CellRecord, FrontierRecord, RunInfo


class RunExistsError(FlopbenchError):
    """There is a folder where a new run was to be."""


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
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise RunExistsError(f"run folder {path} exists already; use --resume {path}") from None
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
        # Not for reading alone: a network's file system asks for more to lock a file.
        with (self.path / "run.json").open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FlopbenchError(f"{self.path} is being measured by another flopbench") from None
            except OSError:
                # A file system without locks, where nobody can tell.
                pass
            yield

    def append(self, record: CellRecord) -> None:
        """Add a record; it is on disk when this returns."""
        _append_line(self.path / "cells.jsonl", record)

    def append_frontier(self, record: FrontierRecord) -> None:
        """Add a frontier; it is on disk when this returns."""
        _append_line(self.path / "frontier.jsonl", record)

    def frontiers(self) -> list[FrontierRecord]:
        """The memory frontiers found, if the suite asked for them; damaged lines as in `lines`."""
        path = self.path / "frontier.jsonl"
        return list(_read_lines(path, FrontierRecord)) if path.is_file() else []

    def lines(self) -> Iterator[CellRecord]:
        """Every record in the order of writing, later measurements of a cell included.

        A damaged line is passed over with a warning: it costs its own cell, and no other.

        Raises:
            FlopbenchError: the file cannot be read, or a line is of a newer schema.
        """
        path = self.path / "cells.jsonl"
        if not path.is_file():
            raise FlopbenchError(f"{self.path} is not a run: it has no cells.jsonl")
        yield from _read_lines(path, CellRecord)

    def set_torn_lines_aside(self) -> None:
        """Move unfinished last lines to `cells.torn` and `frontier.torn`; whole ones stay."""
        for name, kind in (("cells", CellRecord), ("frontier", FrontierRecord)):
            path = self.path / f"{name}.jsonl"
            whole, newline, torn = (path.read_bytes() if path.is_file() else b"").rpartition(b"\n")
            if not torn or _is_whole(torn, kind):
                continue
            aside = path.with_suffix(".torn")
            warnings.warn(f"{path}: the last line was torn and is set aside in {aside.name}", stacklevel=2)
            with aside.open("ab") as file:
                file.write(torn + b"\n")
            write_atomically(path, whole + newline)

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


def _read_lines(path: Path, kind: type[Record]) -> Iterator[Record]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FlopbenchError(f"{path} cannot be read: {error.strerror}") from None
    # Bytes, for str.splitlines() also splits within a string that holds U+2028.
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            problem = f"{path}, line {number} {what_is_wrong(error)}"
            if is_newer(error):
                raise FlopbenchError(problem) from None
            warnings.warn(f"{problem}; passed over", stacklevel=2)


def _is_whole(line: bytes, kind: type[Frozen]) -> bool:
    try:
        kind.model_validate_json(line)
    except ValidationError as error:
        return is_newer(error)
    return True


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


def _append_line(path: Path, record: Frozen) -> None:
    with path.open("ab+") as file:
        if file.tell():
            # A last line that was cut short must not swallow this one.
            file.seek(-1, os.SEEK_END)
        glued = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * glued + as_json(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
