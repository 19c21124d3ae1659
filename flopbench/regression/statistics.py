"""How much worse a figure became between two measurements that were not taken side by side.

The unit is the process where both sides have several, otherwise the round. Values are logarithms, so
that a change is a difference, and oriented so that larger is worse.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from flopbench.results import Interval
from flopbench.timing.statistics import MIN_ROUNDS, expanded_tail, trimmed_mean

DRAWS = 4999
BATCHES = 4
ROUNDING = 1e-9
"""Logarithms of times that differ by less are the same."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Worsening:
    """The distribution of a change: `estimate` of the difference of logs and `draws` around it."""

    estimate: float
    draws: Array

    @property
    def interval(self) -> Interval:
        """Relative worsening with its 95 % interval."""
        low, high = np.quantile(self.draws, [0.025, 0.975])
        return Interval(estimate=math.expm1(self.estimate), low=math.expm1(low), high=math.expm1(high))

    def p_value(self, tolerance: float) -> float:
        """One-sided p-value of the hypothesis that the worsening is at most `tolerance`.

        Where no draw is that small the normal tail stands in, so that many cells can be corrected for.
        """
        bound = math.log1p(tolerance)
        below = int((self.draws <= bound).sum())
        if below:
            return below / len(self.draws)
        tail = NormalDist().cdf((bound - self.estimate) / float(self.draws.std()))
        return min(1 / (len(self.draws) + 1), tail)

    def widened(self, deviation: float) -> "Worsening":
        """The same with noise of this standard deviation added that the values themselves do not show."""
        noise = np.random.default_rng(0).standard_normal(len(self.draws))
        return Worsening(self.estimate, self.draws + deviation * noise)


def worsening(base: Array, new: Array, *, seed: int = 0) -> Worsening | None:
    """The change of location from `base` `[n]` to `new` `[m]`, which are independent of each other.

    Six values or more on both sides are bootstrapped in blocks, which keeps the correlation of
    neighbouring rounds, and widened for the size of the sample as in `timing.statistics`. Fewer, such as
    the estimates of a few processes, get Student's t with the pooled deviation. None where nothing says
    how far to trust the values: one alone on either side, or all alike, as a coarse clock gives them.
    """
    smallest = min(len(base), len(new))
    if smallest < 2:
        return None
    estimate = float(trimmed_mean(new) - trimmed_mean(base))
    random = np.random.default_rng(seed)
    if smallest < MIN_ROUNDS:
        degrees = len(base) + len(new) - 2
        deviation = pooled_deviation(base, new) * math.sqrt(1 / len(base) + 1 / len(new))
        return _with_spread(estimate, estimate + deviation * random.standard_t(degrees, DRAWS))
    return _with_spread(estimate, _bootstrap(new, random) - _bootstrap(base, random))


def paired_worsening(differences: Array, *, seed: int = 0) -> Worsening | None:
    """The change from differences `[n]`, n ≥ 2, of measurements taken in pairs, by Student's t.

    What the machine does to both of a pair is not in their difference. None where all are alike.
    """
    estimate, degrees = float(differences.mean()), len(differences) - 1
    deviation = pooled_deviation(differences) / math.sqrt(len(differences))
    draws = estimate + deviation * np.random.default_rng(seed).standard_t(degrees, DRAWS)
    return _with_spread(estimate, draws)


def _with_spread(estimate: float, draws: Array) -> Worsening | None:
    return Worsening(estimate, draws) if np.ptp(draws) > ROUNDING else None


def pooled_deviation(*groups: Array) -> float:
    """Standard deviation within groups of repeated measurements, 0 where none was repeated."""
    degrees = sum(len(group) - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return math.sqrt(squares / degrees) if degrees else 0.0


def spread(base: Array, new: Array, *, processes: bool) -> float:
    """The A/A spread: the relative standard deviation of the figure when nothing has changed.

    From repeated processes it is their deviation. Within one process it is that of the whole from the
    means of consecutive batches, which sees drift but not what differs from process to process.
    """
    if processes:
        return pooled_deviation(base, new)
    batches = [_batch_means(group) for group in (base, new)]
    return pooled_deviation(*batches) / math.sqrt(BATCHES)


def _batch_means(values: Array) -> Array:
    if len(values) < 2 * BATCHES:
        return values[:1]
    return np.array([float(trimmed_mean(batch)) for batch in np.array_split(values, BATCHES)])


def _bootstrap(values: Array, random: np.random.Generator) -> Array:
    n = len(values)
    length = max(1, round(n ** (1 / 3)) if n >= 20 else 1)
    starts = random.integers(0, n, (DRAWS, math.ceil(n / length), 1))
    # Circular blocks: every value is drawn equally often.
    indices = ((starts + np.arange(length)) % n).reshape(DRAWS, -1)[:, :n]
    draws = trimmed_mean(values[indices])
    normal = NormalDist()
    widening = normal.inv_cdf(expanded_tail(n, 0.95)) / normal.inv_cdf(0.025)
    return float(trimmed_mean(values)) + (draws - draws.mean()) * widening
