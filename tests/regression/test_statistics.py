import math

import numpy as np
import pytest

from flopbench.regression.statistics import paired_worsening, spread, worsening


def _lognormal(random, n, noise=0.02):
    return random.normal(0.0, noise, n)


@pytest.mark.parametrize("n", [3, 4, 8, 30])
def test_intervals_contain_the_truth_as_often_as_they_say(n):
    random = np.random.default_rng(1)
    truth = math.log(1.05)
    hits = 0
    for seed in range(300):
        found = worsening(_lognormal(random, n), _lognormal(random, n) + truth, seed=seed)
        hits += found is not None and found.interval.low <= 0.05 <= found.interval.high
    # Nominal 95 %; the deviation of the count is 3.8.
    assert 272 <= hits <= 300


@pytest.mark.parametrize("base", [[0.0], [0.0, 0.0], [0.0] * 30])
def test_a_lone_value_and_values_all_alike_have_no_interval(base):
    assert worsening(np.array(base), np.full(len(base), math.log(1.1))) is None
    assert paired_worsening(np.full(4, 0.1)) is None


def test_outliers_alone_are_no_spread():
    """A coarse clock: the middle half is one tick, and so is the bootstrap's."""
    ticks = np.array([0.0] * 200 + [1.0])
    assert worsening(ticks, ticks + 0.1) is None


def test_noise_that_the_values_do_not_show_widens_the_interval():
    random = np.random.default_rng(0)
    found = worsening(_lognormal(random, 30, 0.001), _lognormal(random, 30, 0.001) + math.log(1.1))
    assert found is not None
    assert found.interval.low > 0.09
    widened = found.widened(0.05).interval
    assert widened.low == pytest.approx(math.expm1(math.log(1.1) - 1.96 * 0.05), abs=0.01)
    assert widened.estimate == found.interval.estimate


def test_p_values_go_below_the_number_of_draws():
    random = np.random.default_rng(0)
    found = worsening(_lognormal(random, 20, 0.001), _lognormal(random, 20, 0.001) + 0.2)
    assert found is not None
    assert found.p_value(0.05) < 1e-6
    assert found.p_value(0.5) == 1.0


def test_spread_is_the_deviation_between_processes():
    base, new = np.array([0.0, 0.02]), np.array([1.0, 1.02])
    assert spread(base, new, processes=True) == pytest.approx(0.01 * math.sqrt(2))


def test_spread_sees_drift_within_a_process():
    steady = np.random.default_rng(0).normal(0, 0.01, 40)
    drifting = steady + np.linspace(0, 0.2, 40)
    assert spread(drifting, drifting, processes=False) > 5 * spread(steady, steady, processes=False)
