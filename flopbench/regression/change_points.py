"""Where a series of figures changed its level: piecewise-constant least absolute deviations.

The method that asv published for benchmark histories (airspeed velocity, `step_detect`), after
F. Friedrich et al., *Complexity penalized M-estimation: fast computation*, Journal of Computational and
Graphical Statistics 17, 2008: the L1 Potts functional is minimised exactly by dynamic programming, and
the number of levels chosen by an information criterion. Medians make it deaf to single outliers. Written
here in a page, because the libraries that offer it bring scipy along.
"""

import math
from bisect import insort
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

MIN_LENGTH = 2
"""Values that make a level; a single one is an outlier."""
MAX_LEVELS = 12
NOISE_FLOOR = 0.002
"""Relative deviation below which measurements are never trusted to differ."""


class Level(NamedTuple):
    """A stretch of a series: values `start` (included) to `end` (excluded) around `value`, their median."""

    start: int
    end: int
    value: float


def levels(values: Sequence[float], *, min_change: float = 0.01) -> list[Level]:
    """Split a series into levels.

    Args:
        values: positive figures in the order of time.
        min_change: neighbouring levels that differ by less, relative, are one.

    Returns:
        At least one level of a non-empty series, in order, without gaps.

    Raises:
        ValueError: a value is not positive and finite.
    """
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError("change points need positive, finite values")
    if not values:
        return []
    logs = [math.log(value) for value in values]
    found = [Level(start, end, median(values[start:end])) for start, end in _segments(logs)]
    return _joined(found, values, min_change)


def _segments(logs: list[float]) -> list[tuple[int, int]]:
    n = len(logs)
    most = min(MAX_LEVELS, max(1, n // MIN_LENGTH))
    cost = _costs(logs)
    # best[k][end]: least cost of the first `end` values in k + 1 levels, and where the last one starts.
    best: list[list[float]] = [[math.inf] * (n + 1) for _ in range(most)]
    start: list[list[int]] = [[0] * (n + 1) for _ in range(most)]
    for end in range(min(MIN_LENGTH, n), n + 1):
        best[0][end] = cost[0][end]
    for k in range(1, most):
        for end in range((k + 1) * MIN_LENGTH, n + 1):
            options = range(k * MIN_LENGTH, end - MIN_LENGTH + 1)
            start[k][end] = min(options, key=lambda cut: best[k - 1][cut] + cost[cut][end])
            best[k][end] = best[k - 1][start[k][end]] + cost[start[k][end]][end]

    def criterion(k: int) -> float:
        # n log(scale) + penalty for each level and each cut, as for Laplacian noise; asv's weight of 4.
        return n * math.log(best[k][n] / n + NOISE_FLOOR) + 4 * k * math.log(n)

    k, end = min(range(most), key=criterion), n
    segments = []
    while True:
        begin = start[k][end] if k else 0
        segments.append((begin, end))
        if k == 0:
            return segments[::-1]
        k, end = k - 1, begin


def _costs(values: list[float]) -> list[list[float]]:
    """`costs[i][j]`: the sum of |x − median| over values i to j, j excluded."""
    n = len(values)
    costs = [[0.0] * (n + 1) for _ in range(n)]
    for i in range(n):
        ordered: list[float] = []
        total = 0.0
        for j in range(i, n):
            # A new value adds its distance from the median; an even count makes no difference to the sum.
            total += abs(values[j] - _middle(ordered, values[j]))
            insort(ordered, values[j])
            costs[i][j + 1] = total
    return costs


def _middle(ordered: list[float], new: float) -> float:
    """A value m with which the sum of absolute deviations grows by |new − m| when `new` joins `ordered`."""
    if not ordered:
        return new
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    # Between the two middle values every point is a median: the nearest to `new` counts.
    return min(max(new, ordered[middle - 1]), ordered[middle])


def _joined(found: list[Level], values: Sequence[float], min_change: float) -> list[Level]:
    joined = found[:1]
    for level in found[1:]:
        last = joined[-1]
        if abs(level.value / last.value - 1) < min_change:
            joined[-1] = Level(last.start, level.end, median(values[last.start : level.end]))
        else:
            joined.append(level)
    return joined
