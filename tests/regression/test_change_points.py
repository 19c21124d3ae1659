from itertools import combinations
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopbench.regression.change_points import _costs, levels


def _series(*parts, noise=0.003, seed=0):
    random = np.random.default_rng(seed)
    return [value * float(np.exp(random.normal(0, noise))) for value, count in parts for _ in range(count)]


def test_a_step_is_found_where_it_is():
    found = levels(_series((1.6, 12), (1.5, 9)))
    assert [(level.start, level.end) for level in found] == [(0, 12), (12, 21)]
    assert found[1].value == pytest.approx(1.5, rel=0.01)


def test_steps_up_and_down():
    found = levels(_series((1.0, 6), (1.3, 6), (1.1, 6)))
    assert [level.start for level in found] == [0, 6, 12]


def test_noise_alone_has_no_steps():
    alarms = sum(len(levels(_series((1.5, 30), noise=0.01, seed=seed))) > 1 for seed in range(40))
    assert alarms <= 1


def test_single_outliers_are_no_level():
    values = _series((1.5, 20))
    values[7], values[15] = 0.9, 2.4
    assert len(levels(values)) == 1


def test_small_steps_are_not_marked():
    values = _series((1.5, 10), (1.507, 10), noise=0.0001)
    assert len(levels(values, min_change=0.01)) == 1
    assert len(levels(values, min_change=0.001)) == 2


def test_short_series():
    assert levels([]) == []
    assert [level.value for level in levels([2.0])] == [2.0]
    assert len(levels([1.0, 2.0])) == 1
    with pytest.raises(ValueError, match="positive"):
        levels([1.0, 0.0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=9))
def test_costs_are_sums_of_deviations_from_the_median(values):
    costs = _costs(values)
    for start, end in combinations(range(len(values) + 1), 2):
        part = values[start:end]
        assert costs[start][end] == pytest.approx(sum(abs(v - median(part)) for v in part), abs=1e-9)
