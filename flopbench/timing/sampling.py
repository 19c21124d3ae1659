"""Warm-up and rounds: both models of a pair in turn, A B B A, until the speed-up is known well enough."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from flopbench.results import Interval
from flopbench.timing.clock import Clock
from flopbench.timing.statistics import MIN_ROUNDS, ratio_interval
from flopbench.timing.workload import Workload

Stop = Literal["precision", "time", "rounds"]

# A block of calls is at least this long, so that a block of fast calls outlasts what surrounds it.
BLOCK_SECONDS = 0.01
MAX_BLOCK_CALLS = 50


@dataclass
class Rounds:
    """Raw samples of both models, seconds a call, a list a round."""

    baseline: list[list[float]] = field(default_factory=list)
    candidate: list[list[float]] = field(default_factory=list)
    baseline_host: list[list[float]] = field(default_factory=list)
    candidate_host: list[list[float]] = field(default_factory=list)
    speedup: Interval | None = None
    stop: Stop = "time"


def warm_up(
    clock: Clock,
    workload: Workload,
    *,
    seconds: float,
    tolerance: float = 0.01,
    at_least: int = 3,
    block: int = 3,
    now: Callable[[], float] = time.monotonic,
) -> list[float]:
    """Call until the medians of two successive blocks agree within `tolerance`, or `seconds` have passed.

    Returns:
        Seconds of each warm-up call.
    """
    start = now()
    calls: list[float] = []
    while True:
        calls += clock.time(workload, 1)[0]
        if len(calls) >= 2 * block:
            before, after = median(calls[-2 * block : -block]), median(calls[-block:])
            if abs(after / before - 1) <= tolerance:
                return calls
        if len(calls) >= at_least and now() - start >= seconds:
            return calls


def calls_a_block(seconds: float) -> int:
    """How many calls of `seconds` each make a block long enough to be timed well."""
    return max(1, min(MAX_BLOCK_CALLS, round(BLOCK_SECONDS / max(seconds, 1e-9))))


def sample_pair(
    clock: Clock,
    baseline: Workload,
    candidate: Workload,
    *,
    calls: int,
    precision: float,
    seconds: float,
    min_rounds: int = 2,
    max_rounds: int = 1000,
    rounds: Rounds | None = None,
    after_round: Callable[[Rounds], object] = lambda rounds: None,
    turn: Callable[[str, int], AbstractContextManager[None]] = lambda role, calls: nullcontext(),
    now: Callable[[], float] = time.monotonic,
) -> Rounds:
    """Time both models in alternating rounds A B B A.

    Args:
        clock: of the device.
        baseline: A.
        candidate: B.
        calls: calls a block; a round holds twice as many of each model.
        precision: stop once the 95 % interval lies within ± this, relative.
        seconds: stop before a round would end after so many seconds.
        min_rounds: at least so many, two or more, whatever the time; fewer than `MIN_ROUNDS` never stop on
            precision: their interval is not to be trusted.
        max_rounds: stop after so many.
        rounds: of an earlier call, to be added to; the limits on rounds and seconds count anew.
        after_round: called after each round, outside the timed calls.
        turn: each block's calls run within what it gives for their role and number.
        now: the wall clock.

    Returns:
        All samples, the speed-up with its interval, and what ended the sampling.
    """
    rounds = rounds or Rounds()
    before = len(rounds.baseline)
    start = now()
    check_at = max(MIN_ROUNDS, min_rounds)
    while True:
        begun = now()
        samples: dict[str, list[float]] = {"A": [], "B": []}
        host: dict[str, list[float]] = {"A": [], "B": []}
        for model in "ABBA":
            role, workload = ("baseline", baseline) if model == "A" else ("candidate", candidate)
            with turn(role, calls):
                device_seconds, host_seconds = clock.time(workload, calls)
            samples[model] += device_seconds
            host[model] += host_seconds
        rounds.baseline.append(samples["A"])
        rounds.candidate.append(samples["B"])
        if host["A"]:
            rounds.baseline_host.append(host["A"])
            rounds.candidate_host.append(host["B"])
        after_round(rounds)
        count = len(rounds.baseline) - before
        length = now() - begun
        out_of_time = count >= min_rounds and now() - start + length > seconds
        if count >= check_at or out_of_time or count >= max_rounds:
            # Looking after every round would stop on lucky streaks; a growing step keeps looks few.
            check_at = max(count + 1, round(count * 1.25))
            if count >= 2:
                rounds.speedup = ratio_interval(rounds.baseline, rounds.candidate)
                if count >= MIN_ROUNDS and rounds.speedup.half_width <= precision:
                    rounds.stop = "precision"
                    return rounds
        if out_of_time or count >= max_rounds:
            rounds.stop = "time" if out_of_time else "rounds"
            return rounds
