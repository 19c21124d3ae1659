"""Races on disk: `races.json` says what is raced on what, `trials.jsonl` has a line per training that ended.

A trial that ran again (a resumed race) has its later line count.
"""

from flopbench.results.folder import RecordsFolder
from flopbench.results.trainings import RacesInfo, Role, Trial


class RacesFolder(RecordsFolder[RacesInfo, Trial]):
    """The folder of one or several races."""

    what, done = "race", "run"
    info_file, lines_file = "races.json", "trials.jsonl"
    info_kind, line_kind = RacesInfo, Trial

    def trials(self) -> list[Trial]:
        """The last record of every trial that ended, in the order in which they first did."""
        latest: dict[tuple[str, Role, int], Trial] = {}
        for trial in self.lines():
            latest[trial.id] = trial
        return list(latest.values())
