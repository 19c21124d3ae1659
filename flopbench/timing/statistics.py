"""The speed-up of a pair and its interval, from rounds of alternating calls.

A round times baseline and candidate in the order A B B A, so that a linear drift cancels within it.
Its statistic is the difference of the mean log times, which is symmetric about the truth whenever
the noise does not care which model runs, however skewed that noise is. Rounds are summarised by
their interquartile mean, which shrugs off a noisy neighbour, and the interval is the bootstrap
percentile interval with the levels expanded for small samples (Hesterberg, *What Teachers Should
Know About the Bootstrap*, The American Statistician 69, 2015): the plain percentile interval is too
narrow by √(1 − 1/n) and by normal instead of t quantiles, at ten rounds several points of coverage.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from flopbench.results import Interval

MIN_ROUNDS = 6
TRIM = 0.25
RESAMPLES = 2000

Array = NDArray[np.float64]
Rows = Sequence[Sequence[float]]


def round_log_ratios(baseline: Rows, candidate: Rows) -> Array:
    """log(time of the baseline / time of the candidate) of each round, `[rounds]`.

    Raises:
        ValueError: the two have a different number of rounds.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} rounds of the baseline, {len(candidate)} of the candidate")
    return np.array(
        [np.log(a).mean() - np.log(b).mean() for a, b in zip(baseline, candidate, strict=True)], dtype=float
    )


def trimmed_mean(values: Array) -> Array:
    """Mean of the middle half along the last axis."""
    n = values.shape[-1]
    cut = int(TRIM * n)
    if cut == 0:
        return values.mean(-1)
    # The order within the middle does not matter, so a partition does for a sort.
    return np.partition(values, (cut, n - cut - 1), axis=-1)[..., cut : n - cut].mean(-1)


def location_interval(values: Array, *, level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """(estimate, low, high) of the location of `values` `[n]` by the expanded bootstrap.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs at least two finite values, got {n}")
    resampled = trimmed_mean(values[np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))])
    tail = expanded_tail(n, level)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(trimmed_mean(values)), float(low), float(high)


def expanded_tail(n: int, level: float) -> float:
    """The percentile, below (1 − level)/2, that makes up for the bootstrap's narrowness at n values."""
    # Slow to import, and not needed to read what was measured.
    from scipy.special import stdtrit

    quantile = math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 + level) / 2)
    return NormalDist().cdf(-quantile)


def ratio_interval(baseline: Rows, candidate: Rows, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Speed-up (time of the baseline / time of the candidate) with its interval.

    Args:
        baseline: seconds a call, one inner sequence a round.
        candidate: the same, of the same rounds.
        level: of confidence.
        seed: of the resampling, so that a report is reproducible from the samples.

    Raises:
        ValueError: fewer than two rounds.
    """
    estimate, low, high = location_interval(round_log_ratios(baseline, candidate), level=level, seed=seed)
    return Interval(estimate=math.exp(estimate), low=math.exp(low), high=math.exp(high))


def time_interval(rows: Rows, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Seconds per call of one model with their interval, from its rounds alone.

    Unlike that of a ratio, it does not hold what drifts over all rounds apart from the model.

    Args:
        rows: seconds per call, one inner sequence per round.
        level: of confidence.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two rounds.
    """
    logs = np.array([np.log(row).mean() for row in rows], dtype=float)
    estimate, low, high = location_interval(logs, level=level, seed=seed)
    return Interval(estimate=math.exp(estimate), low=math.exp(low), high=math.exp(high))


def share_interval(share: float, count: int, *, level: float = 0.95) -> Interval:
    """A share of `count` independent things with Wilson's score interval, which stays within 0 and 1."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, weight = (share + z * z / (2 * count), 1 + z * z / count)
    reach = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = max((centre - reach) / weight, 0.0), min((centre + reach) / weight, 1.0)
    return Interval(estimate=share, low=min(low, share), high=max(high, share))


def outliers(values: Array) -> NDArray[np.bool_]:
    """Which values lie over 5 robust deviations (1.4826 × MAD) from the median. Marked, never dropped."""
    centre = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - centre))
    return np.abs(values - centre) > 5 * max(float(spread), 1e-9)
