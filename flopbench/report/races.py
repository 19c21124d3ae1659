"""Races as one object: who ended where and was at the target when, and what that comes to."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flopbench.report import text
from flopbench.report.findings import Answer
from flopbench.report.page import Origin, Page, checked_ids, flag_groups
from flopbench.report.race_findings import answers_of
from flopbench.report.race_outcome import Outcome, outcomes_of
from flopbench.report.race_tables import race_tables
from flopbench.report.reported import Reported
from flopbench.report.table import Table
from flopbench.results.measures import PIXELS
from flopbench.results.points import points_frame
from flopbench.results.races import RacesFolder
from flopbench.results.trainings import Trial

if TYPE_CHECKING:
    import pandas as pd

    from flopbench.report.pictures import Drawing

LEGEND = (
    "Accuracies are of what one would deploy: of the averaged weights where there are some. Training time is "
    "that of training steps with the loading of their images; compiling, evaluating and saving are outside. "
    "A ratio is what the baseline takes over what the candidate takes, so above 1 the candidate takes less. "
    "Intervals hold 95 % over seeds, paired by seed: Student's, and from six seeds on the bootstrap. They "
    "say what other seeds would give, not what other images would, and each holds on its own: of twenty "
    "comparisons without any difference one shows one. Mirrored networks train on mirrored images, too; wide "
    "ones have the MACs of the baseline; narrow and shallow ones are the baseline with the MACs of the "
    "candidate, by its width or by its depth. Parameters are those of linear maps and convolutions. TTA is "
    "mirror test-time augmentation, the mean of the probabilities of an image and its mirror image. "
    "1 MAC = 2 FLOPs."
)

ANSWERS = (
    "Answers of the trained networks are timed in the process that trained them, in the same arithmetic and "
    "mode: images per second of whole batches by the median call, and half of that with TTA, which runs the "
    "network twice."
)


class RaceResult(Reported):
    """The races of one run, or of several side by side, as `race` and `load` give them.

        result = flopbench.race("proxy-cpu", "vit_ti16.flop", "animal-shape-mnist")
        print(result)
        result.frame().groupby(["entrant", "seed"])["ema_top1"].max()

    What it shows is what the folders held when it was first looked at; a race that has not ended shows what
    there is.

    Attributes:
        folders: where the races are on disk, a folder per run.
    """

    telling = ("accuracy-differences", "accuracy-against-time")

    def __init__(self, *folders: RacesFolder) -> None:
        self.folders = folders
        checked_ids([folder.info.id for folder in folders])

    @classmethod
    def open(cls, *paths: str | Path) -> Self:
        """Those in folders that `flopbench race` wrote.

        Raises:
            FlopbenchError: one holds no race, or two have the same id.
        """
        return cls(*(RacesFolder.open(Path(path)) for path in paths))

    @cached_property
    def trials(self) -> list[list[Trial]]:
        """The trials of each run."""
        return [folder.trials() for folder in self.folders]

    @cached_property
    def outcomes(self) -> list[list[Outcome]]:
        """What came of each race of each run."""
        runs = [
            outcomes_of(folder.info, trials) for folder, trials in zip(self.folders, self.trials, strict=True)
        ]
        if len(runs) == 1:
            return runs
        return [
            [replace(one, title=f"{one.title}, {text.printable(folder.info.id)}") for one in run]
            for folder, run in zip(self.folders, runs, strict=True)
        ]

    @property
    def _all(self) -> list[Outcome]:
        return [one for run in self.outcomes for one in run]

    def frame(self) -> "pd.DataFrame":
        """A row per race, entrant, seed and evaluation: see `flopbench.results.points.points_frame`."""
        infos = (folder.info for folder in self.folders)
        return points_frame(zip(infos, self.trials, strict=True))

    @property
    def answers(self) -> list[Answer]:
        """What the races say in plain words, of each run all of them together first."""
        runs = zip(self.folders, self.outcomes, strict=True)
        return [answer for folder, run in runs for answer in answers_of(folder.info, run)]

    def tables(self) -> list[Table | str]:
        """The tables alone, the summary of the entrants before what compares them."""
        return [*race_tables(self._all)]

    def drawings(self) -> "Iterable[Drawing | None]":
        """How far apart the accuracies are, and accuracy against what is spent, of each run."""
        from flopbench.report.pictures.race import of_races

        for number, (folder, run) in enumerate(zip(self.folders, self.outcomes, strict=True), 1):
            suffix = f"-{number}" if len(self.folders) > 1 else ""
            yield from of_races(run, folder.info.environment.device_name, suffix)

    def nothing_drawn(self) -> str:
        """What a picture would need."""
        return "no training of a race ended well"

    def page(self) -> Page:
        """The report of the races."""
        infos = [folder.info for folder in self.folders]
        origins = [
            Origin(info.id, info.created, f"suite {info.suite}", info.command, info.environment)
            for info in infos
        ]
        flagged = (
            (f"{one.title}: {one.called(trial.entrant)}, seed {trial.seed}", trial.flags)
            for one in self._all
            for trial in one.trials
        )
        title = " · ".join(dict.fromkeys(info.title for info in infos))
        legend = [LEGEND]
        legend += [PIXELS] * any(one.measure.of == "pixels" for one in self._all)
        legend += [ANSWERS] * any(use.rate for one in self._all for use in one.uses)
        return self._page(title, origins, " ".join(legend), flag_groups(flagged, "training"))
