"""Races on disk: `races.json` says what is raced on what, `trials.jsonl` has a line per training that ended.

A trial that ran again (a resumed race) has its later line count.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flopbench.errors import FlopbenchError
from flopbench.results.files import read_record, write_record
from flopbench.results.lines import append_line, locked, read_lines, set_torn_line_aside
from flopbench.results.run import made_folder
from flopbench.results.trainings import RaceInfo, RacesInfo, Role, Trial

RACES, TRIALS = "races.json", "trials.jsonl"


class RacesFolder:
    """The folder of one or several races. Reading never changes it; `append` adds a trial and flushes it."""

    def __init__(self, path: Path, info: RacesInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def create(cls, path: Path, info: RacesInfo) -> "RacesFolder":
        """Make a new folder.

        Raises:
            RunExistsError: it exists already.
        """
        with made_folder(path):
            write_record(path / RACES, info)
            (path / TRIALS).touch()
        return cls(path, info)

    @classmethod
    def open(cls, path: Path) -> "RacesFolder":
        """Open an existing folder.

        Raises:
            FlopbenchError: it holds no race, or one of a schema this version does not read.
        """
        file = path / RACES
        if not file.is_file():
            raise FlopbenchError(f"{path} is not a race: it has no {RACES}")
        return cls(path, read_record(file, RacesInfo))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within it, no other process runs this race.

        Raises:
            FlopbenchError: another process runs it.
        """
        with locked(self.path / RACES, f"{self.path} is being run by another flopbench"):
            yield

    def append(self, trial: Trial) -> None:
        """Add a trial; it is on disk when this returns."""
        append_line(self.path / TRIALS, trial)

    def set_torn_line_aside(self) -> None:
        """Move an unfinished last line to `trials.torn`; whole ones stay."""
        set_torn_line_aside(self.path / TRIALS, Trial)

    def trials(self) -> list[Trial]:
        """The last record of every trial that ended, in the order in which they first did.

        A damaged line is passed over with a warning: it costs its own trial, and no other.

        Raises:
            FlopbenchError: the file cannot be read, or a line is of a newer schema.
        """
        path = self.path / TRIALS
        if not path.is_file():
            raise FlopbenchError(f"{self.path} is not a race: it has no {TRIALS}")
        latest: dict[tuple[str, Role, int], Trial] = {}
        for trial in read_lines(path, Trial):
            latest[trial.id] = trial
        return list(latest.values())

    def of(self, race: RaceInfo) -> list[Trial]:
        """The trials of one race."""
        return [trial for trial in self.trials() if trial.race == race.key]
