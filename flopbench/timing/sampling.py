"""Warm-up and rounds: both models of a pair in turn, A B B A, until the speed-up is known well enough.

A model alone is sampled in the same way, A A, until its time is.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from flopbench.results import Interval
from flopbench.timing.clock import Clock, Timed
from flopbench.timing.pacing import PACING, Pacing, Plan
from flopbench.timing.statistics import MIN_ROUNDS, ratio_interval, time_interval
from flopbench.timing.workload import Workload

Stop = Literal["precision", "time", "rounds"]

ROLES: tuple[str, str] = ("baseline", "candidate")
ROUND = ("baseline", "candidate", "candidate", "baseline")


@dataclass
class Rounds:
    """Raw samples of both models, a list per round; of a model alone, of the baseline.

    Attributes:
        baseline, candidate: seconds per call, the first half of a round's from the model's first turn in it.
        baseline_host, candidate_host: seconds that the host took to dispatch the first call of each turn.
        baseline_waited, candidate_waited: per call, whether the device may have waited for the host.
        speedup: of a pair, from two rounds on.
        seconds: of a model alone, per call, likewise.
    """

    baseline: list[list[float]] = field(default_factory=list)
    candidate: list[list[float]] = field(default_factory=list)
    baseline_host: list[list[float]] = field(default_factory=list)
    candidate_host: list[list[float]] = field(default_factory=list)
    baseline_waited: list[list[bool]] = field(default_factory=list)
    candidate_waited: list[list[bool]] = field(default_factory=list)
    speedup: Interval | None = None
    seconds: Interval | None = None
    stop: Stop = "time"

    @property
    def interval(self) -> Interval | None:
        """What is to be known well enough."""
        return self.speedup or self.seconds

    def settle(self) -> Interval:
        """The interval of all rounds, two or more."""
        if self.candidate:
            found = self.speedup = ratio_interval(self.baseline, self.candidate)
        else:
            found = self.seconds = time_interval(self.baseline)
        return found


def warm_up(
    clock: Clock,
    workload: Workload,
    *,
    seconds: float,
    tolerance: float = 0.01,
    at_least: int = 3,
    block: int = 3,
    pacing: Pacing = PACING["cpu"],
) -> list[float]:
    """Call until the medians of two successive blocks agree within `tolerance`, or `seconds` have passed.

    After that, or before, the device is kept busy without a pause until `pacing.warm_up` seconds have passed.

    Returns:
        Seconds of each warm-up call.
    """
    start = clock.now()
    calls: list[float] = []
    while not _settled(calls, tolerance, block):
        calls += clock.time(workload, 1).seconds
        if len(calls) >= at_least and clock.now() - start >= seconds:
            break
    while clock.now() - start < pacing.warm_up:
        calls += clock.time(workload, pacing.calls(median(calls[-block:]))).seconds
    return calls


def _settled(calls: list[float], tolerance: float, block: int) -> bool:
    if len(calls) < 2 * block:
        return False
    before, after = median(calls[-2 * block : -block]), median(calls[-block:])
    return abs(after / before - 1) <= tolerance


def sample_rounds(
    clock: Clock,
    workloads: Mapping[str, Workload],
    *,
    precision: float,
    seconds: float,
    plan: Plan = Plan(),  # noqa: B008 - immutable
    at_least: float = 0.0,
    min_rounds: int = 2,
    max_rounds: int = 1000,
    rounds: Rounds | None = None,
    after_round: Callable[[Rounds], object] = lambda rounds: None,
    turn: Callable[[str, int], AbstractContextManager[None]] = lambda role, calls: nullcontext(),
) -> Rounds:
    """Time both models in alternating rounds A B B A, or one model alone.

    Args:
        clock: of the device.
        workloads: A and B by role, baseline and candidate; or the baseline alone.
        precision: stop once the 95 % interval lies within ± this, relative.
        seconds: stop before a round would end after so many seconds.
        plan: of the turns; a round holds two of each model.
        at_least: seconds, before which no precision is enough.
        min_rounds: at least so many, two or more, whatever the time; fewer than `MIN_ROUNDS` never stop on
            precision: their interval is not to be trusted.
        max_rounds: stop after so many.
        rounds: of an earlier call, to be added to; the limits on rounds and seconds count anew.
        after_round: called after each round, outside the timed calls.
        turn: each turn's calls run within what it gives for their role and number.

    Returns:
        All samples, the speed-up or the time with its interval, and what ended the sampling.
    """
    rounds = rounds or Rounds()
    before = len(rounds.baseline)
    start = clock.now()
    check_at = max(MIN_ROUNDS, min_rounds)
    previous = ""
    while True:
        begun = clock.now()
        turns: dict[str, list[Timed]] = {role: [] for role in workloads}
        for role in filter(workloads.__contains__, ROUND):
            lead = (plan.again if role == previous else plan.lead)[role]
            with turn(role, lead + plan.calls):
                turns[role].append(clock.time(workloads[role], plan.calls, lead))
            previous = role
        for role, (first, second) in turns.items():
            getattr(rounds, role).append([*first.seconds, *second.seconds])
            if first.host:
                getattr(rounds, f"{role}_host").append([*first.host, *second.host])
                getattr(rounds, f"{role}_waited").append([*first.waited, *second.waited])
        after_round(rounds)
        count = len(rounds.baseline) - before
        elapsed = clock.now() - start
        out_of_time = count >= min_rounds and elapsed + clock.now() - begun > seconds
        if count >= check_at or out_of_time or count >= max_rounds:
            # Looking after every round would stop on lucky streaks; a growing step keeps looks few.
            check_at = max(count + 1, round(count * 1.25))
            if count >= 2:
                known = rounds.settle().half_width <= precision
                if known and count >= MIN_ROUNDS and elapsed >= at_least:
                    rounds.stop = "precision"
                    return rounds
        if out_of_time or count >= max_rounds:
            rounds.stop = "time" if out_of_time else "rounds"
            return rounds
