"""The interval keeps its word: simulated noise of every kind, with fixed seeds."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from flopbench.timing.clock import Timed
from flopbench.timing.sampling import sample_rounds
from flopbench.timing.statistics import (
    expanded_tail,
    location_interval,
    outliers,
    ratio_interval,
    round_log_ratios,
    share_interval,
    trimmed_mean,
)


def calls(kind: str, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Relative log times of the calls of A B B A rounds, `[rounds, 4]`."""
    n = 4 * rounds
    if kind == "lognormal":
        noise = rng.normal(0, 0.04, n)
    elif kind == "drifting":
        noise = rng.normal(0, 0.03, n) + np.cumsum(rng.normal(0, 0.01, n)) + np.linspace(0, 0.3, n)
    elif kind == "bimodal":
        noise = rng.normal(0, 0.01, n) + 0.25 * (rng.random(n) < 0.3)
    else:  # what a neighbour's bursts do on a shared machine: rare calls twice as long
        noise = rng.normal(0, 0.02, n) + 0.7 * (rng.random(n) < 0.04)
    return noise.reshape(rounds, 4)


def samples(noise: np.ndarray, speedup: float) -> tuple[tuple, tuple]:
    times = np.exp(noise)
    baseline = tuple(map(tuple, times[:, [0, 3]] * speedup))
    return baseline, tuple(map(tuple, times[:, [1, 2]]))


@pytest.mark.parametrize("kind", ["lognormal", "drifting", "bimodal", "bursts"])
@pytest.mark.parametrize("rounds", [8, 20])
def test_nominal_95_percent_intervals_cover_93_to_97_percent(kind: str, rounds: int):
    rng = np.random.default_rng(7)
    trials = 1000
    covered = 0
    for _ in range(trials):
        interval = ratio_interval(*samples(calls(kind, rounds, rng), 1.7))
        covered += interval.low <= 1.7 <= interval.high
    # Two standard errors of a proportion of 1000 are 1.4 points.
    assert 0.93 - 0.007 <= covered / trials <= 0.97 + 0.014


def test_a_slow_down_of_5_percent_is_found_at_the_noise_of_a_shared_machine():
    # Calls of ViT-S on two shared cores scatter by about 4 % (lognormal) with bursts of a neighbour.
    rng = np.random.default_rng(11)
    found = 0
    for _ in range(100):
        noise = calls("lognormal", 20, rng) + 0.5 * (rng.random((20, 4)) < 0.02)
        found += ratio_interval(*samples(noise, 1 / 1.05)).high < 1
    assert found >= 95


def test_no_slow_down_is_seldom_found():
    rng = np.random.default_rng(12)
    found = sum(
        not interval.low <= 1 <= interval.high
        for interval in (ratio_interval(*samples(calls("bursts", 12, rng), 1.0)) for _ in range(200))
    )
    assert found <= 14


def test_stopping_at_the_wanted_precision_keeps_the_coverage():
    rng = np.random.default_rng(3)
    covered = 0
    trials = 300
    for _ in range(trials):
        clock = SimulatedClock(rng, 0.02)
        rounds = sample_rounds(
            clock,
            {"baseline": "A", "candidate": "B"},  # type: ignore[dict-item]
            precision=0.01,
            seconds=1e9,
        )
        assert rounds.stop == "precision"
        assert rounds.speedup is not None
        covered += rounds.speedup.low <= 1.5 <= rounds.speedup.high
    assert covered / trials >= 0.92


class SimulatedClock:
    """Times with lognormal noise, A 1.5 times as long as B."""

    def __init__(self, rng: np.random.Generator, noise: float) -> None:
        self.rng, self.noise = rng, noise

    def time(self, workload: Any, calls: int, lead: int = 0) -> Timed:
        scale = 1.5 if workload == "A" else 1.0
        return Timed(list(scale * np.exp(self.rng.normal(0, self.noise, calls))))

    def synchronise(self) -> None:
        pass

    def now(self) -> float:
        return 0.0


def test_a_linear_drift_cancels_within_a_round():
    drift = np.linspace(0, 1.0, 40).reshape(10, 4)
    assert round_log_ratios(*samples(drift, 2.0)) == pytest.approx(np.log(2.0))


def test_one_burst_of_a_neighbour_moves_nothing():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.005, (20, 4))
    noise[3, 1] = 2.0
    interval = ratio_interval(*samples(noise, 1.8))
    assert interval.estimate == pytest.approx(1.8, rel=0.005)
    assert interval.half_width < 0.01


def test_the_interval_is_reproducible_and_holds_the_estimate():
    rng = np.random.default_rng(5)
    data = samples(calls("lognormal", 10, rng), 1.2)
    first, second = ratio_interval(*data), ratio_interval(*data)
    assert first == second
    assert first.low < first.estimate < first.high


def test_small_samples_get_wider_percentiles():
    # Student's quantile at 4 degrees is 2.776.
    assert NormalDist().inv_cdf(expanded_tail(5, 0.95)) == pytest.approx(-(1.25**0.5) * 2.776, abs=1e-3)
    assert expanded_tail(6, 0.95) < expanded_tail(20, 0.95) < expanded_tail(10_000, 0.95) < 0.025


def test_trimmed_mean_is_the_mean_of_the_middle():
    assert trimmed_mean(np.array([1.0, 2.0, 3.0, 4.0, 1000.0])) == pytest.approx(3.0)
    assert trimmed_mean(np.array([1.0, 5.0])) == pytest.approx(3.0)


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [1.0, np.inf]])
def test_no_interval_from_what_does_not_carry_one(values: list[float]):
    with pytest.raises(ValueError, match="at least two finite values"):
        location_interval(np.array(values))


def test_rounds_must_match():
    with pytest.raises(ValueError, match="2 rounds of the baseline, 1 of the candidate"):
        ratio_interval(((1.0,), (1.0,)), ((1.0,),))


def test_outliers_are_marked():
    values = np.array([1.0, 1.01, 0.99, 1.02, 0.98, 3.0])
    assert outliers(values).tolist() == [False] * 5 + [True]


def test_the_interval_of_a_share_holds_it_as_often_as_it_says_and_stays_within_0_and_1():
    rng = np.random.default_rng(0)
    for truth in (0.02, 0.5, 0.93):
        found = [share_interval(right / 1000, 1000) for right in rng.binomial(1000, truth, 2000)]
        assert np.mean([one.low <= truth <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)
    # Wilson's of 9 of 10, and where none or all are right.
    assert share_interval(0.9, 10).low == pytest.approx(0.5958, abs=1e-4)
    assert share_interval(0.9, 10).high == pytest.approx(0.9821, abs=1e-4)
    assert share_interval(1.0, 50).high == 1
    assert 0.9 < share_interval(1.0, 50).low < 0.95
    assert share_interval(0.0, 50).low == 0
