"""Percentiles against distributions whose percentiles are known."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from flopbench.results.percentiles import PERCENTILES, percentile_interval, samples_needed

TRIALS = 1000


@pytest.mark.parametrize("percentile", PERCENTILES)
@pytest.mark.parametrize("count", [400, 1100])
def test_intervals_hold_the_percentile_as_often_as_they_say(percentile: int, count: int):
    rng = np.random.default_rng(0)
    held = 0
    for row in np.exp(rng.normal(0, 0.3, (TRIALS, count))).tolist():
        found = percentile_interval(row, percentile)
        assert found is not None
        held += found[1] <= math.exp(0.3 * NormalDist().inv_cdf(percentile / 100)) <= found[2]
    # Below by three standard errors of a proportion of 1000; above, for samples are whole.
    assert 0.93 <= held / TRIALS <= 0.99


def test_an_interval_is_the_narrowest_that_the_binomial_distribution_allows():
    # Of ten samples the median lies beyond the second of either end in 11 of 1024 cases, beyond the third
    # in 56: more than one in forty.
    assert percentile_interval(range(1, 11), 50) == (5.5, 2, 9)


@pytest.mark.parametrize("percentile", [1, 10, *PERCENTILES])
def test_as_many_samples_as_are_needed_are_enough_and_one_less_is_not(percentile: int):
    def beyond(count: int) -> float:
        """How often all of so many samples lie to one side."""
        return max(1 - percentile / 100, percentile / 100) ** count

    needed = samples_needed(percentile)
    assert beyond(needed) <= 0.025 < beyond(needed - 1)
    assert percentile_interval(range(needed - 1), percentile) is None
    found = percentile_interval(range(needed), percentile)
    assert found is not None
    assert 0 <= found[1] <= found[0] <= found[2] <= needed - 1


def test_samples_may_come_in_any_order():
    values = np.random.default_rng(0).permutation(500).tolist()
    assert percentile_interval(values, 90) == percentile_interval(sorted(values), 90)
