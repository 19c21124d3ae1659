"""The entrants of a race: how right each ended, what it spent, and what it takes to answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from flopbench.report.trajectories import Axis, Estimate, ratio_interval, reached, seed_interval, spent
from flopbench.results.trainings import Accuracy, Entrant, Point, Trial


@dataclass(frozen=True)
class Standing:
    """One entrant of a race: its trainings that ended well, by seed, and how many ran at all."""

    entrant: Entrant
    trials: dict[int, Trial]
    ran: int
    target: float | None

    @property
    def ends(self) -> list[Point]:
        """The last evaluation of each."""
        return [trial.points[-1] for trial in self.trials.values()]

    def of_ends(self, figure: Callable[[Accuracy], float | None]) -> list[float]:
        """A figure of the final accuracy of each, where it has one."""
        return [value for end in self.ends if (value := figure(end.best)) is not None]

    @property
    def figures(self) -> list[float]:
        """What decides, of each at the end."""
        return self.of_ends(lambda accuracy: accuracy.plain.figure)

    def at_end(self, axis: Axis) -> list[float]:
        """What each had spent in all, where that is known."""
        return [value for end in self.ends if (value := spent(end, axis)) is not None]

    @property
    def kernels(self) -> str:
        """What its operations ran as; empty where that was not recorded, or it has none of flopbench's."""
        return ", or ".join(dict.fromkeys(trial.kernels for trial in self.trials.values() if trial.kernels))

    @property
    def rates(self) -> list[float]:
        """Images per second of each whole training."""
        return [end.samples / end.seconds for end in self.ends if end.seconds > 0]

    def to_target(self, axis: Axis = "seconds") -> dict[int, float | None]:
        """What each had spent when it reached the target, by seed; None where it did not."""
        if self.target is None:
            return {}
        return {seed: reached(trial.points, self.target, axis) for seed, trial in self.trials.items()}

    @property
    def met(self) -> int:
        """How many seeds reached the target."""
        return sum(value is not None for value in self.to_target("step").values())

    @property
    def all_met(self) -> bool:
        """Whether every training that ran reached the target, and one did."""
        return 0 < self.met == self.ran


@dataclass(frozen=True)
class Use:
    """A trained entrant as one uses it: as it is, or `averaged` over an image and its mirror image.

    Estimates are over the seeds. `figure` is what decides, a share, `seconds` and `training_rate` what its
    training took, and `rate` images per second in inference, None where that was not measured.
    """

    standing: Standing
    averaged: bool
    figure: Estimate

    @property
    def runs(self) -> int:
        """How often the network answers per image."""
        return 2 if self.averaged else 1

    @property
    def macs(self) -> int:
        """Per image."""
        return self.runs * self.standing.entrant.macs

    @property
    def rate(self) -> Estimate | None:
        """By the median call of each seed."""
        trials = self.standing.trials.values()
        return ratio_interval([trial.inference.rate / self.runs for trial in trials if trial.inference])

    @property
    def seconds(self) -> Estimate | None:
        """Of the whole training."""
        return ratio_interval([*filter(None, self.standing.at_end("seconds"))])

    @property
    def training_rate(self) -> Estimate | None:
        """Images per second of the whole training."""
        return ratio_interval(self.standing.rates)


def uses_of(standing: Standing, grain: float) -> Iterator[Use]:
    """As it is, and with test-time augmentation where asked for; neither where no training ended well.

    Args:
        standing: of the entrant.
        grain: the step that its accuracies come in, in points.
    """
    for averaged in (False, True):
        if ends := standing.of_ends(partial(deciding, averaged=averaged)):
            found = seed_interval(ends, grain=grain / 100)
            # What is a share lies between none and all.
            low, high = (None if end is None else min(1.0, max(0.0, end)) for end in (found.low, found.high))
            yield Use(standing, averaged, replace(found, low=low, high=high))


def deciding(accuracy: Accuracy, *, averaged: bool) -> float | None:
    """What decides, of the images alone or of test-time augmentation; None where nobody asked for that."""
    scores = accuracy.averaged if averaged else accuracy.plain
    return scores and scores.figure
