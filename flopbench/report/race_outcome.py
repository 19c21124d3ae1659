"""The outcome of a race: who reaches the target when, and how far apart the accuracies end.

Every figure is one per seed first, of what one would deploy (`Point.best`), and then a mean over the seeds
with its 95 % interval: entrants that trained with the same seed saw the same images in the same order, so
differences and ratios are paired by it. Trainings that did not end well count for nothing but their reason.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from flopbench.results.trainings import Accuracy, Entrant, Point, RaceInfo, Role, Trial
from flopbench.timing.statistics import MIN_ROUNDS, location_interval

Axis = Literal["step", "samples", "seconds", "joules", "macs"]
"""What a training spends, and its accuracy may be seen against."""

Verdict = Literal["better", "worse", "not told apart", "one seed"]
"""Of the candidate: what its interval says, which a single seed has not."""

Equal = Literal["steps", "seconds", "MACs", "linear parameters and MACs", "steps, at twice the cost"]
"""What two accuracies have in common."""

# A training that goes on by less than this share beyond the common budget counts as compared at its end.
_CUT = 0.02


@dataclass(frozen=True)
class Estimate:
    """The mean of one figure per seed, with the ends of its 95 % interval, which one seed alone has not."""

    value: float
    low: float | None
    high: float | None
    seeds: int

    def verdict(self, level: float = 0.0) -> Verdict:
        """Whether the interval lies above or below what no difference would be."""
        if self.low is None or self.high is None:
            return "one seed"
        return "better" if self.low > level else "worse" if self.high < level else "not told apart"


def seed_interval(values: Sequence[float]) -> Estimate:
    """The location of one figure per seed, with its 95 % interval.

    From six seeds on this is the expanded bootstrap, as it is for speed-ups. Of fewer it is Student's: no
    bootstrap reaches beyond the values that it draws from, whose range covers the truth in 1 − 2^(1 − n) of
    all cases, three of four where there are three seeds.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("no seed, no figure")
    seeds = len(values)
    if seeds == 1:
        return Estimate(values[0], None, None, seeds)
    if seeds >= MIN_ROUNDS:
        return Estimate(*location_interval(np.asarray(values, dtype=float)), seeds)
    # Slow to import, and not needed where nothing is raced.
    from scipy.special import stdtrit

    mean = fmean(values)
    half = float(stdtrit(seeds - 1, 0.975)) * stdev(values) / math.sqrt(seeds)
    return Estimate(mean, mean - half, mean + half, seeds)


def ratio_interval(ratios: Sequence[float]) -> Estimate | None:
    """The location of one ratio per seed, with its interval, found for their logarithms; None of none."""
    if not ratios:
        return None
    found = seed_interval([math.log(ratio) for ratio in ratios])
    low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
    return Estimate(math.exp(found.value), low, high, found.seeds)


def spent(point: Point, axis: Axis) -> float | None:
    """What a training had spent at an evaluation; None where that is not known."""
    return getattr(point, axis)


def reached(points: Sequence[Point], target: float, axis: Axis = "seconds") -> float | None:
    """What a training had spent when its accuracy first reached the target.

    Between evaluations accuracy is taken to rise linearly. Where the first is above the target, it is what
    was spent by then, the most that it can have been.

    Args:
        points: its evaluations.
        target: top-1 as a share.
        axis: of what.

    Returns:
        None where the target is not met, or what was spent is not known.
    """
    before: Point | None = None
    for point in points:
        top1, here = point.best.plain.top1, spent(point, axis)
        if top1 >= target:
            there = None if before is None else spent(before, axis)
            if before is None or here is None or there is None:
                return here
            low = before.best.plain.top1
            return there + (here - there) * (target - low) / (top1 - low)
        before = point
    return None


def top1_at(points: Sequence[Point], axis: Axis, budget: float) -> float | None:
    """Top-1, a share, when so much was spent, linear between evaluations; None before the first."""
    along = [(at, point.best.plain.top1) for point in points if (at := spent(point, axis)) is not None]
    if not along or not along[0][0] <= budget <= along[-1][0]:
        return None
    spending, top1 = zip(*along, strict=True)
    return float(np.interp(budget, spending, top1))


@dataclass(frozen=True)
class Comparison:
    """The accuracy of one entrant against another's: the candidate's or the wide one's against whom else.

    Attributes:
        one: whose accuracy is better if the difference is above zero.
        other: whom it is compared with.
        equal: what they have in common.
        averaged: whether the other's accuracy is of mirror test-time augmentation, at twice its cost.
        tops: top-1 of both, shares, means over the seeds.
        points: the difference, in percentage points.
        budget: what both have spent, seconds or MACs, the mean over the seeds; None at the end of both.
        cut: whose training goes on beyond the budget, and what share of it lies within.
        cost: MACs per image of the other over those of the one in inference.
    """

    one: Entrant
    other: Entrant
    equal: Equal
    averaged: bool
    tops: tuple[float, float]
    points: Estimate
    budget: float | None
    cut: tuple[Entrant, float] | None
    cost: float

    @property
    def verdict(self) -> Verdict:
        """Of the one."""
        return self.points.verdict()


@dataclass(frozen=True)
class Standing:
    """One entrant of a race, and its trainings that ended well, by seed."""

    entrant: Entrant
    trials: dict[int, Trial]
    target: float | None

    @property
    def ends(self) -> list[Point]:
        """The last evaluation of each."""
        return [trial.points[-1] for trial in self.trials.values()]

    def of_ends(self, figure: Callable[[Accuracy], float | None]) -> list[float]:
        """A figure of the final accuracy of each, where it has one."""
        return [value for end in self.ends if (value := figure(end.best)) is not None]

    def at_end(self, axis: Axis) -> list[float]:
        """What each had spent in all, where that is known."""
        return [value for end in self.ends if (value := spent(end, axis)) is not None]

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


@dataclass(frozen=True)
class Pace:
    """How much sooner than the baseline the candidate is at the target, and where that comes from.

    `ratios` are what the baseline had spent over what the candidate had, above 1 if that is less, of the
    seeds in which both met it; None of none. `speed` is images per second, the candidate's over the
    baseline's. `complete`: every seed of both met the target, so that the ratios flatter nobody.
    """

    baseline: Standing
    candidate: Standing
    ratios: dict[Axis, Estimate | None]
    speed: Estimate | None
    complete: bool

    @property
    def verdict(self) -> Verdict | Literal["not met"]:
        """Of the time to the target."""
        time = self.ratios["seconds"]
        return time.verdict(1.0) if time and self.complete else "not met"


@dataclass(frozen=True)
class Outcome:
    """What came of one race.

    Attributes:
        race: what was raced on what.
        trials: all its trainings, those that did not end well too.
        target: top-1 as a share; None where it is the baseline's to set, and no training of it ended well.
        declared: whether the target was set beforehand.
    """

    race: RaceInfo
    trials: tuple[Trial, ...]
    target: float | None
    declared: bool

    @cached_property
    def standings(self) -> dict[Role, Standing]:
        """Every entrant, in the order of the race."""
        return {
            entrant.key: Standing(entrant, _ended(self.trials, entrant.key), self.target)
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
        ratios: dict[Axis, Estimate | None] = {}
        for axis in ("seconds", "samples", "joules", "macs"):
            theirs, own = baseline.to_target(axis), candidate.to_target(axis)
            ratios[axis] = ratio_interval(
                [x / e for seed in _common(theirs, own) if (x := theirs[seed]) and (e := own[seed])]
            )
        speeds = [
            (e.samples / e.seconds) / (x.samples / x.seconds)
            for (*_, x), (*_, e) in _points(baseline, candidate)
            if x.seconds > 0 and e.seconds > 0
        ]
        seeds = self.race.declared.seeds
        return Pace(
            baseline, candidate, ratios, ratio_interval(speeds), baseline.met == candidate.met == seeds
        )

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Those whose entrants both run, and have ended with a common seed."""
        found = []
        for one, other, equal, axis in _COMPARED:
            averaged = equal == "steps, at twice the cost"
            # Where the recipe mirrors anyway, X is the rival itself.
            rival = "baseline" if averaged and other not in self.standings else other
            if one in self.standings and rival in self.standings:
                found.append(_compared(self.standings[one], self.standings[rival], equal, axis))
        return [comparison for comparison in found if comparison]


_COMPARED: tuple[tuple[Role, Role, Equal, Axis | None], ...] = (
    ("candidate", "baseline", "steps", None),
    ("candidate", "baseline", "seconds", "seconds"),
    ("candidate", "baseline", "MACs", "macs"),
    ("wide", "baseline", "linear parameters and MACs", None),
    ("wide", "baseline", "seconds", "seconds"),
    ("candidate", "mirror", "steps", None),
    ("candidate", "mirror", "steps, at twice the cost", None),
    ("candidate", "half-width", "MACs", None),
    ("candidate", "half-depth", "MACs", None),
)
"""Who is compared with whom, what they have in common, and what is spent equally; None at the end of both."""


def _compared(one: Standing, other: Standing, equal: Equal, axis: Axis | None) -> Comparison | None:
    """One comparison; None where no seed has the accuracy of both."""
    averaged = equal == "steps, at twice the cost"
    tops: list[tuple[float, float]] = []
    budgets: list[float] = []
    for first, second in _points(one, other):
        whole = [spent(points[-1], axis) for points in (first, second)] if axis else []
        budget = min((value for value in whole if value is not None), default=None)
        rival = second[-1].best.averaged if averaged else second[-1].best.plain
        if axis and budget is not None and None not in whole:
            pair = top1_at(first, axis, budget), top1_at(second, axis, budget)
            budgets.append(budget)
        else:
            pair = (None if axis else first[-1].best.plain.top1), rival and rival.top1
        if pair[0] is not None and pair[1] is not None:
            tops.append((pair[0], pair[1]))
    if not tops:
        return None
    return Comparison(
        one.entrant,
        other.entrant,
        equal,
        averaged,
        (fmean(top for top, _ in tops), fmean(top for _, top in tops)),
        seed_interval([100 * (top - rival) for top, rival in tops]),
        fmean(budgets) if budgets else None,
        _cut(one, other, axis) if axis else None,
        other.entrant.macs * (2 if averaged else 1) / one.entrant.macs,
    )


def outcome_of(race: RaceInfo, trials: Iterable[Trial]) -> Outcome:
    """What came of a race, of all the trials of its run.

    Its target is the declared one, else the lowest top-1 that a seed of the baseline ended with, which is
    what every seed of it reached.
    """
    own = tuple(trial for trial in trials if trial.race == race.key)
    declared = race.declared.target
    if declared is not None:
        return Outcome(race, own, declared / 100, True)
    ends = [trial.points[-1].best.plain.top1 for trial in _ended(own, "baseline").values()]
    return Outcome(race, own, min(ends, default=None), False)


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


def _cut(one: Standing, other: Standing, axis: Axis) -> tuple[Entrant, float] | None:
    """Whose training goes on beyond the smaller budget of both, and what share of it lies within."""
    shorter, longer = sorted((one, other), key=lambda standing: fmean(standing.at_end(axis) or [0.0]))
    longest = fmean(longer.at_end(axis) or [0.0])
    share = fmean(shorter.at_end(axis) or [0.0]) / longest if longest else 1.0
    return (longer.entrant, share) if share < 1 - _CUT else None
