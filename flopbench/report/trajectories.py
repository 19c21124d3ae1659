"""What one training reaches when, and what several seeds say of a figure together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from flopbench.results.trainings import Point
from flopbench.timing.statistics import MIN_ROUNDS, location_interval

Axis = Literal["step", "samples", "seconds", "joules", "macs"]
"""What a training spends, and its accuracy may be seen against."""

Verdict = Literal["better", "worse", "not told apart", "one seed"]
"""What an interval says of the candidate; a single seed has none."""


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


def seed_interval(values: Sequence[float], *, grain: float = 0.0) -> Estimate:
    """The location of one figure per seed, with its 95 % interval.

    From six seeds on this is the expanded bootstrap, as it is for speed-ups. Of fewer it is Student's: no
    bootstrap reaches beyond the values that it draws from, whose range covers the truth in 1 − 2^(1 − n) of
    all cases, three of four where there are three seeds.

    Args:
        values: the figures.
        grain: the steps that they come in, as differences of shares of a few images do. Seeds that agree by
            chance are not taken to agree more closely than rounding to such steps leaves known.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("no seed, no figure")
    seeds = len(values)
    if seeds == 1:
        return Estimate(values[0], None, None, seeds)
    # Slow to import, and not needed where nothing is raced.
    from scipy.special import stdtrit

    quantile = float(stdtrit(seeds - 1, 0.975)) / math.sqrt(seeds)
    # Either of the two that are subtracted is off by up to half a step: the deviation of their difference.
    least = grain / math.sqrt(6)
    if seeds >= MIN_ROUNDS:
        middle, low, high = location_interval(np.asarray(values, dtype=float))
        half = quantile * least
        return Estimate(middle, min(low, middle - half), max(high, middle + half), seeds)
    middle, half = fmean(values), quantile * max(stdev(values), least)
    return Estimate(middle, middle - half, middle + half, seeds)


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
        target: the figure that decides, a share.
        axis: of what.

    Returns:
        None where the target is not met, or what was spent is not known.
    """
    before: Point | None = None
    for point in points:
        figure, here = point.best.plain.figure, spent(point, axis)
        if figure >= target:
            there = None if before is None else spent(before, axis)
            if before is None or here is None or there is None:
                return here
            low = before.best.plain.figure
            return there + (here - there) * (target - low) / (figure - low)
        before = point
    return None


def figure_at(points: Sequence[Point], axis: Axis, budget: float) -> float | None:
    """What decides, a share, when so much was spent, linear between evaluations; None before the first."""
    along = [(at, point.best.plain.figure) for point in points if (at := spent(point, axis)) is not None]
    if not along or not along[0][0] <= budget <= along[-1][0]:
        return None
    spending, figures = zip(*along, strict=True)
    return float(np.interp(budget, spending, figures))
