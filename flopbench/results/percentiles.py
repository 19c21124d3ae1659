"""Percentiles of raw samples, with intervals that assume nothing of how the samples are distributed.

The interval's ends are samples themselves. However the values are distributed, how many of n independent ones
lie below a percentile is binomially distributed, which says between which two of the sorted samples the
percentile lies (David and Nagaraja, *Order Statistics*, 2003, 7.1). Where not even the least and the largest
of them are far enough apart for that, there are too few.
"""

import math
from collections.abc import Sequence

import numpy as np

PERCENTILES = (50, 90, 99)
"""Those that latencies are given by."""


def samples_needed(percentile: float, *, level: float = 0.95) -> int:
    """The least number of samples that bound a percentile to either side.

    It is the least n with so many that all lie below it, or all above, in at most (1 − level) / 2 of cases
    each.
    """
    share = percentile / 100
    return math.ceil(math.log((1 - level) / 2) / math.log(max(share, 1 - share)))


def percentile_interval(
    samples: Sequence[float], percentile: float, *, level: float = 0.95
) -> tuple[float, float, float] | None:
    """(estimate, low, high) of a percentile; None of fewer than `samples_needed`.

    Args:
        samples: independent values of one distribution, in any order.
        percentile: 0 < percentile < 100.
        level: of confidence, at least: samples are whole, and the interval is rounded outwards to them.
    """
    # Slow to import, and most runs have no latencies.
    from scipy.special import bdtr

    count, tail, share = len(samples), (1 - level) / 2, percentile / 100
    if count < samples_needed(percentile, level=level):
        return None
    values = np.sort(np.asarray(samples, dtype=float))
    # The probability that at most so many of all samples lie below.
    below = bdtr(np.arange(count, dtype=float), count, share)
    low = int(np.searchsorted(below, tail, side="right")) - 1
    high = min(int(np.searchsorted(below, 1 - tail, side="left")), count - 1)
    return float(np.quantile(values, share)), float(values[low]), float(values[high])
