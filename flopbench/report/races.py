"""Races as one object: who ended where and was at the target when, and what that comes to."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flopbench.report.findings import Answer
from flopbench.report.page import Origin, Page, environment_table, flag_groups
from flopbench.report.race_findings import answers_of
from flopbench.report.race_outcome import Outcome, outcomes_of
from flopbench.report.race_tables import race_tables
from flopbench.report.reported import Reported
from flopbench.report.table import Table
from flopbench.results.points import points_frame
from flopbench.results.races import RacesFolder

if TYPE_CHECKING:
    import pandas as pd

    from flopbench.report.pictures import Drawing

LEGEND = (
    "Accuracies are of what one would deploy: of the averaged weights where there are some. Training time is "
    "that of training steps with the loading of their images; compiling, evaluating and saving are outside. "
    "A ratio is what the baseline takes over what the candidate takes, so above 1 the candidate takes less. "
    "Intervals hold 95 % over seeds, paired by seed: Student's, and from six seeds on the bootstrap. They "
    "say what other seeds would give, not what other images would, and each holds on its own: of twenty "
    "comparisons without any difference one shows one. TTA is mirror test-time augmentation, the mean of the "
    "probabilities of an image and its mirror image. 1 MAC = 2 FLOPs."
)


class RaceResult(Reported):
    """The races of one run, as `race` and `load` give them.

        result = flopbench.race("cpu-small", "vit_ti16.flop", "animal-shape-mnist")
        print(result)
        result.frame().groupby(["entrant", "seed"])["ema_top1"].max()

    What it shows is what the folder held when it was first looked at; a race that has not ended shows what
    there is.

    Attributes:
        folder: where the races are on disk.
    """

    def __init__(self, folder: RacesFolder) -> None:
        self.folder = folder

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Those in a folder that `flopbench race` wrote.

        Raises:
            FlopbenchError: it holds no race.
        """
        return cls(RacesFolder.open(Path(path)))

    @cached_property
    def outcomes(self) -> Sequence[Outcome]:
        """What came of each race."""
        return outcomes_of(self.folder.info, self.folder.trials())

    def frame(self) -> "pd.DataFrame":
        """A row per race, entrant, seed and evaluation: see `flopbench.results.points.points_frame`."""
        return points_frame(self.folder.info.races, [t for one in self.outcomes for t in one.trials])

    @property
    def answers(self) -> list[Answer]:
        """What the races say in plain words, all of them together first."""
        return answers_of(self.folder.info, self.outcomes)

    def tables(self) -> list[Table | str]:
        """The tables alone, the summary of the entrants before what compares them."""
        return [*race_tables(self.outcomes)]

    def drawings(self) -> "Iterable[Drawing | None]":
        """Accuracy against what is spent."""
        return ()

    def page(self) -> Page:
        """The report of the races."""
        from flopbench.report.pictures import draw_all

        info = self.folder.info
        origin = Origin(info.id, info.created, f"suite {info.suite}", info.command, info.environment)
        flagged = (
            (f"{one.title}: {one.called(trial.entrant)}, seed {trial.seed}", trial.flags)
            for one in self.outcomes
            for trial in one.trials
        )
        return Page(
            title=info.title,
            origins=[origin],
            answers=self.answers,
            tables=[*race_tables(self.outcomes), environment_table([origin])],
            pictures=draw_all(self.drawings),
            legend=LEGEND,
            flags=flag_groups(flagged, "training"),
        )
