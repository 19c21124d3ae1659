"""Where a pair's time goes, as one object: its record, tables, sentences and report."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flopbench.report.shown import Shown
from flopbench.report.table import Table
from flopbench.results import ProfileRecord, write_record

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Profiled(Shown):
    """Where the time of both networks of a pair goes, as `flopbench.profile` gives it.

    It prints as its tables and sentences, in a notebook too.

    Attributes:
        record: every figure of it.
    """

    record: ProfileRecord

    def shown(self) -> list[Table | str]:
        """The tables, and the sentences that they come to."""
        return [*self.tables(), *self.sentences]

    def tables(self) -> list[Table]:
        """Least times and measured ones; seconds by kind of operator, part of the network, and operator."""
        from flopbench.profiling.tables import all_tables

        return all_tables(self.record)

    @property
    def sentences(self) -> list[str]:
        """What is promised, allowed and measured, what is missing in between, and what was not counted."""
        from flopbench.profiling.explain import explain

        return explain(self.record)

    def frame(self) -> "pd.DataFrame":
        """A row per operator or kernel and model: `role`, `label`, `operator`, `kind`, `seconds`, `calls`.

        Both are per call of the model, the time of an operator without those that it calls.
        """
        import pandas as pd

        models = {"baseline": self.record.baseline, "candidate": self.record.candidate}
        rows = [
            (role, model.label, one.name, one.group, one.seconds, one.calls)
            for role, model in models.items()
            for one in model.operators
        ]
        return pd.DataFrame(rows, columns=["role", "label", "operator", "kind", "seconds", "calls"])

    def report(self, path: str | Path = "reports") -> Path:
        """Write the report as `flopbench profile` does: a page with its pictures and data.

        Args:
            path: where the report's folder goes; that is called after the pair and its cell.

        Returns:
            The page.
        """
        from flopbench.profiling.page import write_profile

        return write_profile(self.record, Path(path))

    def save(self, run: str | Path) -> Path:
        """Store the record in a run folder, whose report shows it then.

        Returns:
            The file.
        """
        from flopbench.profiling.page import profile_stem

        file = Path(run) / f"{profile_stem(self.record)}.json"
        write_record(file, self.record)
        return file
