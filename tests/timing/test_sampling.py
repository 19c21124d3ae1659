"""Warm-up, rounds and what ends them, with a clock whose times the test decides."""

from collections.abc import Callable
from itertools import cycle

import pytest

from flopbench.results import UNRESOLVED
from flopbench.timing.clock import Timed
from flopbench.timing.flags import find_flags
from flopbench.timing.pacing import Plan
from flopbench.timing.sampling import sample_rounds, warm_up
from flopbench.timing.statistics import MIN_ROUNDS


class ScriptedClock:
    """Gives the seconds of a script for each model, notes the order, and advances the wall clock."""

    def __init__(self, **scripts: Callable[[], float]) -> None:
        self.scripts = scripts
        self.order = ""
        self.wall = 0.0

    def time(self, workload: str, calls: int, lead: int = 0) -> Timed:
        self.order += lead * workload.lower() + workload
        seconds = [self.scripts[workload]() for _ in range(calls)]
        self.wall += sum(seconds)
        return Timed(seconds)

    def synchronise(self) -> None:
        pass

    def now(self) -> float:
        return self.wall


def always(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def noisy(*seconds: float) -> Callable[[], float]:
    values = cycle(seconds)
    return lambda: next(values)


def run(clock: ScriptedClock, **options):
    settings = {"precision": 0.01, "seconds": 1000.0, **options}
    return sample_rounds(clock, {"baseline": "A", "candidate": "B"}, **settings)  # type: ignore[arg-type]


def test_rounds_alternate_a_b_b_a():
    clock = ScriptedClock(A=always(2.0), B=always(1.0))
    run(clock)
    assert clock.order == "ABBA" * MIN_ROUNDS


def test_a_turn_after_the_other_model_has_a_longer_lead():
    clock = ScriptedClock(A=always(2.0), B=always(1.0))
    plan = Plan(1, lead={"baseline": 2, "candidate": 4}, again={"baseline": 0, "candidate": 1})
    run(clock, plan=plan, max_rounds=2)
    assert clock.order == "aaA" + "bbbbB" + "bB" + "aaA" + "A" + "bbbbB" + "bB" + "aaA"


def test_a_model_alone_is_sampled_until_its_time_is_known():
    clock = ScriptedClock(A=always(2.0))
    rounds = sample_rounds(clock, {"baseline": "A"}, precision=0.01, seconds=1000.0)  # type: ignore[arg-type]
    assert clock.order == "AA" * MIN_ROUNDS
    assert (rounds.stop, rounds.speedup, rounds.candidate) == ("precision", None, [])
    assert rounds.seconds is not None
    assert rounds.seconds.estimate == pytest.approx(2.0)
    assert find_flags(rounds, {}, precision=0.01) == ()


def test_a_model_alone_whose_time_varies_is_flagged():
    clock = ScriptedClock(A=noisy(1.0, 2.0, 3.0))
    rounds = sample_rounds(clock, {"baseline": "A"}, precision=0.001, seconds=60.0)  # type: ignore[arg-type]
    assert rounds.seconds is not None
    assert 1 <= rounds.seconds.low < rounds.seconds.high <= 3
    assert UNRESOLVED in {flag.kind for flag in find_flags(rounds, {}, precision=0.001)}


def test_no_precision_is_enough_before_the_least_time():
    clock = ScriptedClock(A=always(2.0), B=always(1.0))
    rounds = run(clock, at_least=60.0)
    assert rounds.stop == "precision"
    assert clock.wall >= 60.0


def test_a_certain_ratio_stops_on_precision_after_the_least_rounds():
    rounds = run(ScriptedClock(A=always(2.0), B=always(1.0)))
    assert rounds.stop == "precision"
    assert rounds.speedup is not None
    assert rounds.speedup.estimate == pytest.approx(2.0)
    assert len(rounds.baseline) == MIN_ROUNDS


def test_a_noisy_ratio_uses_up_its_time_and_says_so():
    clock = ScriptedClock(A=noisy(1.0, 2.0, 3.0), B=noisy(2.0, 1.0, 1.5, 0.7))
    rounds = run(clock, seconds=60.0)
    assert rounds.stop == "time"
    assert rounds.speedup is not None
    assert rounds.speedup.half_width > 0.01
    assert clock.wall <= 60.0


def test_an_interval_many_times_as_wide_as_asked_answers_nothing():
    rounds = run(ScriptedClock(A=noisy(1.0, 2.0, 3.0), B=noisy(2.0, 1.0, 1.5, 0.7)), seconds=60.0)
    assert rounds.speedup is not None
    width = rounds.speedup.half_width
    for precision, kind in ((width / 9, "noisy"), (width / 11, UNRESOLVED)):
        assert kind in {flag.kind for flag in find_flags(rounds, {}, precision=precision)}


def test_at_least_two_rounds_whatever_the_time():
    rounds = run(ScriptedClock(A=always(100.0), B=always(100.0)), seconds=1.0)
    assert (len(rounds.baseline), rounds.stop) == (2, "time")
    assert rounds.speedup is not None


def test_rounds_have_a_limit():
    rounds = run(ScriptedClock(A=noisy(1, 2, 3), B=noisy(2, 1, 1.5, 0.7)), max_rounds=7)
    assert (len(rounds.baseline), rounds.stop) == (7, "rounds")


def test_blocks_hold_every_call():
    rounds = run(ScriptedClock(A=always(0.001), B=always(0.001)), plan=Plan(10))
    assert {len(row) for row in rounds.baseline + rounds.candidate} == {20}


def test_after_round_sees_each_round():
    seen: list[int] = []
    run(ScriptedClock(A=always(1), B=always(1)), after_round=lambda rounds: seen.append(len(rounds.baseline)))
    assert seen == list(range(1, MIN_ROUNDS + 1))


def test_warm_up_ends_when_medians_agree():
    times = iter([9.0, 5.0, 3.0, 2.0, 1.5, 1.2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    clock = ScriptedClock(A=lambda: next(times))
    calls = warm_up(clock, "A", seconds=1e9)  # type: ignore[arg-type]
    assert calls[-3:] == [1.0, 1.0, 1.0]
    assert len(calls) == 11


def test_warm_up_of_an_unsteady_model_ends_with_its_time():
    clock = ScriptedClock(A=noisy(1.0, 2.0, 4.0, 8.0, 1.0, 3.0, 9.0))
    calls = warm_up(clock, "A", seconds=30.0)  # type: ignore[arg-type]
    assert 30.0 <= sum(calls) < 40.0


def test_warm_up_calls_at_least_three_times():
    clock = ScriptedClock(A=always(100.0))
    assert len(warm_up(clock, "A", seconds=1.0)) == 3  # type: ignore[arg-type]
