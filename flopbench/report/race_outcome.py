"""The outcome of a race: who reaches the target when, and how far apart the accuracies end.

Every figure is one per seed first, of what one would deploy (`Point.best`), and then a mean over the seeds
with its 95 % interval: entrants that trained with the same seed saw the same images in the same order, so
differences and ratios are paired by it. Trainings that did not end well count for nothing but their reason.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from statistics import fmean
from typing import Literal

from flopbench.report import text
from flopbench.report.race_standings import Standing, Use, deciding, uses_of
from flopbench.report.trajectories import (
    Axis,
    Estimate,
    Verdict,
    figure_at,
    ratio_interval,
    seed_interval,
    spent,
)
from flopbench.results.measures import Measure
from flopbench.results.trainings import Entrant, Point, RaceInfo, RacesInfo, Role, Trial

Equal = Literal["steps", "seconds", "MACs", "parameters, MACs"]
"""What two accuracies have in common."""

# A training that goes on by less than this share beyond the common budget counts as compared at its end.
_CUT = 0.02

# Networks have as many linear parameters where these differ by less than this share.
_ALIKE = 0.1


@dataclass(frozen=True)
class Comparison:
    """The accuracy of one entrant against another's: the candidate's or the wide one's against whom else.

    Attributes:
        one: whose accuracy is better if the difference is above zero.
        other: whom it is compared with.
        equal: what they have in common.
        averaged: whether the other's accuracy is of mirror test-time augmentation, at twice its cost.
        figures: of both, what decides the race, shares, means over the seeds.
        points: the difference, in percentage points.
        budget: what both have spent, seconds or MACs, the mean over the seeds; None at the end of both.
        cut: whose training goes on beyond the budget, and what share of it lies within.
        cost: MACs per image of the other over those of the one in inference.
        time: the same of the measured time; None where that was not measured.
    """

    one: Entrant
    other: Entrant
    equal: Equal
    averaged: bool
    figures: tuple[float, float]
    points: Estimate
    budget: float | None
    cut: tuple[Entrant, float] | None
    cost: float
    time: Estimate | None

    @property
    def verdict(self) -> Verdict:
        """Of the one."""
        return self.points.verdict()


@dataclass(frozen=True)
class Pace:
    """How much sooner than the baseline the candidate is at the target, and where that comes from.

    `ratios` are what the baseline had spent over what the candidate had, above 1 if that is less. There is
    none where a seed of either missed the target: the others alone would flatter whoever did. `speed` is
    images per second, and `energy` joules, of whole trainings, the candidate's over the baseline's.
    """

    baseline: Standing
    candidate: Standing
    ratios: dict[Axis, Estimate]
    speed: Estimate | None
    energy: Estimate | None

    @property
    def verdict(self) -> Verdict | Literal["not met"]:
        """Of the candidate's time to the target."""
        time = self.ratios.get("seconds")
        return time.verdict(1.0) if time else "not met"


@dataclass(frozen=True)
class Outcome:
    """What came of one race.

    Attributes:
        race: what was raced on what.
        trials: all its trainings, those that did not end well too.
        target: what is to be reached, a share; None where it is the baseline's to set, and no training of it
            ended well.
        declared: whether the target was set beforehand.
        title: what the race is called, unlike any other of its run.
    """

    race: RaceInfo
    trials: tuple[Trial, ...]
    target: float | None
    declared: bool
    title: str

    @property
    def measure(self) -> Measure:
        """What decides it, and every accuracy is in."""
        return self.race.measure

    @property
    def grain(self) -> float:
        """The step that accuracies come in, in points: one image, of a segmentation one pixel.

        A pixel that is said to be of another class changes two classes' intersections over unions, each by
        one over its union, which is a share of about one over the classes of all pixels; the mean over the
        classes then by some one over the pixels. So mIoU is as good as continuous. How few images it is of is
        another matter, of which no interval over seeds says anything.
        """
        each = prod(self.race.recipe.image_size) if self.measure.of == "pixels" else 1
        return 100 / (self.race.validation.images * each)

    def called(self, who: Entrant | Role) -> str:
        """What an entrant is called by: X and E(X) by their labels, their rivals after them."""
        entrant = self.race.entrant(who) if isinstance(who, str) else who
        if entrant is None:
            return str(who)
        x, e = (self.race.entrant(role) or entrant for role in ("baseline", "candidate"))
        return CALLED[entrant.key].format(x=text.printable(x.label), e=text.printable(e.label))

    @cached_property
    def standings(self) -> dict[Role, Standing]:
        """Every entrant, in the order of the race."""
        return {
            entrant.key: Standing(
                entrant,
                _ended(self.trials, entrant.key),
                sum(trial.entrant == entrant.key for trial in self.trials),
                self.target,
            )
            for entrant in self.race.entrants
        }

    @property
    def planned(self) -> int:
        """How many trainings the race has when it is done."""
        return self.race.declared.seeds * len(self.race.entrants)

    @property
    def failed(self) -> list[Trial]:
        """The trainings that did not end well."""
        return [trial for trial in self.trials if trial.status != "ok"]

    @cached_property
    def pace(self) -> Pace | None:
        """The times to the target; None where the race lacks X or E(X), or has no target."""
        baseline, candidate = (self.standings.get(role) for role in ("baseline", "candidate"))
        if not (baseline and candidate) or self.target is None:
            return None
        ratios: dict[Axis, Estimate] = {}
        if baseline.all_met and candidate.all_met:
            for axis in ("seconds", "samples", "joules", "macs"):
                theirs, own = baseline.to_target(axis), candidate.to_target(axis)
                both = [(theirs[seed], own[seed]) for seed in _common(theirs, own)]
                if found := ratio_interval([x / e for x, e in both if x and e]):
                    ratios[axis] = found
        ends = [(x, e) for (*_, x), (*_, e) in _points(baseline, candidate)]
        speeds = [
            (e.samples / e.seconds) / (x.samples / x.seconds) for x, e in ends if x.seconds and e.seconds
        ]
        energies = [e.joules / x.joules for x, e in ends if x.joules and e.joules]
        return Pace(baseline, candidate, ratios, ratio_interval(speeds), ratio_interval(energies))

    @cached_property
    def uses(self) -> list[Use]:
        """Every entrant with a training that ended well, and with test-time augmentation if asked for."""
        every = (use for standing in self.standings.values() for use in uses_of(standing, self.grain))
        return [*every]

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Those whose entrants both run, and have ended with a common seed."""
        found = []
        for one, other, equal, axis, averaged in _COMPARED:
            # Where the recipe mirrors anyway, X is the rival itself.
            rival = "baseline" if averaged and other not in self.standings else other
            if one in self.standings and rival in self.standings:
                both = self.standings[one], self.standings[rival]
                found.append(_compared(*both, equal, axis, averaged=averaged, grain=self.grain))
        return [comparison for comparison in found if comparison]


_COMPARED: tuple[tuple[Role, Role, Equal, Axis | None, bool], ...] = (
    ("candidate", "baseline", "steps", None, False),
    ("candidate", "baseline", "seconds", "seconds", False),
    ("candidate", "baseline", "MACs", "macs", False),
    ("wide", "baseline", "MACs", None, False),
    ("wide", "baseline", "seconds", "seconds", False),
    ("candidate", "mirror", "steps", None, False),
    ("candidate", "mirror", "steps", None, True),
    ("candidate", "half-width", "MACs", None, False),
    ("candidate", "half-depth", "MACs", None, False),
)
"""Who is compared with whom, what they have in common, at an equal amount of what (None at the end of both),
and whether the other's accuracy is of mirror test-time augmentation."""


def _compared(
    one: Standing, other: Standing, equal: Equal, axis: Axis | None, *, averaged: bool, grain: float
) -> Comparison | None:
    """One comparison; None where no seed has the accuracy of both. `grain` is that of the race."""
    figures: list[tuple[float, float]] = []
    budgets: list[float] = []
    for first, second in _points(one, other):
        whole = [spent(points[-1], axis) for points in (first, second)] if axis else []
        budget = min((value for value in whole if value is not None), default=None)
        if axis and budget is not None and None not in whole:
            pair = figure_at(first, axis, budget), figure_at(second, axis, budget)
            budgets.append(budget)
        else:
            pair = (
                None if axis else deciding(first[-1].best, averaged=False),
                deciding(second[-1].best, averaged=averaged),
            )
        if pair[0] is not None and pair[1] is not None:
            figures.append((pair[0], pair[1]))
    if not figures:
        return None
    runs = 2 if averaged else 1
    parameters = one.entrant.linear_parameters / other.entrant.linear_parameters
    return Comparison(
        one.entrant,
        other.entrant,
        "parameters, MACs" if equal == "MACs" and not axis and abs(parameters - 1) < _ALIKE else equal,
        averaged,
        (fmean(own for own, _ in figures), fmean(theirs for _, theirs in figures)),
        seed_interval([100 * (own - theirs) for own, theirs in figures], grain=grain),
        fmean(budgets) if budgets else None,
        _cut(one, other, axis) if axis else None,
        runs * other.entrant.macs / one.entrant.macs,
        ratio_interval([runs * own / theirs for own, theirs in _rates(one, other)]),
    )


CALLED: dict[Role, str] = {
    "baseline": "{x}",
    "candidate": "{e}",
    "mirror": "mirrored {x}",
    "wide": "wide {e}",
    "half-width": "narrow {x}",
    "half-depth": "shallow {x}",
}
"""What the entrants of a race are called, by the labels of X and E(X)."""


def outcomes_of(info: RacesInfo, trials: Iterable[Trial]) -> list[Outcome]:
    """What came of each race of a run, of all its trials."""
    trials = [*trials]
    titles = [_title(race) for race in info.races]
    often = Counter(titles)
    return [
        _outcome(race, trials, title if often[title] == 1 else f"{title} ({text.printable(race.key)})")
        for race, title in zip(info.races, titles, strict=True)
    ]


def _title(race: RaceInfo) -> str:
    """`E(ViT-S/16) on digits`."""
    candidate = race.entrant("candidate")
    return text.printable(f"{candidate.label if candidate else race.declared.pair} on {race.data.name}")


def _outcome(race: RaceInfo, trials: Iterable[Trial], title: str) -> Outcome:
    """What came of a race.

    Its target is the declared one, else the lowest accuracy that a seed of the baseline ended with, which is
    what every seed of it reached.
    """
    own = tuple(trial for trial in trials if trial.race == race.key)
    declared = race.declared.target
    if declared is not None:
        return Outcome(race, own, declared / 100, True, title)
    ends = [trial.points[-1].best.plain.figure for trial in _ended(own, "baseline").values()]
    return Outcome(race, own, min(ends, default=None), False, title)


def _ended(trials: Iterable[Trial], role: Role) -> dict[int, Trial]:
    """The trainings of an entrant that ended well, by seed."""
    own = (trial for trial in trials if trial.entrant == role and trial.status == "ok" and trial.points)
    return {trial.seed: trial for trial in sorted(own, key=lambda trial: trial.seed)}


def _common(one: Iterable[int], other: Iterable[int]) -> list[int]:
    """The seeds of both."""
    return sorted({*one} & {*other})


def _points(one: Standing, other: Standing) -> list[tuple[tuple[Point, ...], tuple[Point, ...]]]:
    """The evaluations of both, of each common seed."""
    seeds = _common(one.trials, other.trials)
    return [(one.trials[seed].points, other.trials[seed].points) for seed in seeds]


def _rates(one: Standing, other: Standing) -> list[tuple[float, float]]:
    """Images per second of both in inference, of each common seed where they were measured."""
    trials = ((one.trials[seed], other.trials[seed]) for seed in _common(one.trials, other.trials))
    return [(a.inference.rate, b.inference.rate) for a, b in trials if a.inference and b.inference]


def _cut(one: Standing, other: Standing, axis: Axis) -> tuple[Entrant, float] | None:
    """Whose training goes on beyond the smaller budget of both, and what share of it lies within."""
    shorter, longer = sorted((one, other), key=lambda standing: fmean(standing.at_end(axis) or [0.0]))
    longest = fmean(longer.at_end(axis) or [0.0])
    share = fmean(shorter.at_end(axis) or [0.0]) / longest if longest else 1.0
    return (longer.entrant, share) if share < 1 - _CUT else None
