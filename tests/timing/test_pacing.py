"""Turns that are long enough for a GPU's clocks, on simulated clocks: no real time passes."""

from statistics import median

import numpy as np
import pytest

from flopbench.timing.clock import CudaClock
from flopbench.timing.flags import find_flags
from flopbench.timing.pacing import PACING, Pace, Pacing, Plan
from flopbench.timing.sampling import ROLES, Rounds, sample_rounds, warm_up
from flopbench.timing.statistics import MIN_ROUNDS
from tests.support.gpu import LATENCY, SimulatedGpu

PRECISION = 0.01
CUDA = PACING["cuda"]
# What was taken for both kinds of device before: a CPU's.
SHORT = PACING["cpu"]

# The dense model draws more at full clocks than the card may, and its twin a little more.
SECONDS = {"baseline": 8e-3, "candidate": 5e-3}
WATTS = {"baseline": 950.0, "candidate": 720.0}
CAP = 700.0


def measure(gpu: SimulatedGpu, pacing: Pacing, seconds: float = 10.0) -> tuple[Rounds, Plan]:
    """What `Bench` does, with the clock of a simulated GPU."""
    clock = CudaClock(gpu, gpu.now)
    models = {role: gpu.workload(SECONDS[role], WATTS[role]) for role in ROLES}
    paces = {}
    for role in ROLES:
        calls = warm_up(clock, models[role], seconds=0.1 * seconds, pacing=pacing)
        step = median(calls[-3:])
        paces[role] = Pace(step, step)
    plan = pacing.plan(paces, seconds)
    options = {"plan": plan, "precision": PRECISION, "at_least": pacing.sampling}
    # Between rounds the host is busy with itself.
    pause = 2e-3

    def after_round(rounds: Rounds) -> None:
        gpu.host += pause

    return sample_rounds(clock, models, seconds=seconds, after_round=after_round, **options), plan


def truth(gpu: SimulatedGpu) -> float:
    """The speed-up of models that run on and on, each at the clocks that the cap leaves it."""
    baseline, candidate = (SECONDS[role] / gpu.speed(WATTS[role]) for role in ROLES)
    return baseline / candidate


def error(gpu: SimulatedGpu, rounds: Rounds) -> float:
    assert rounds.speedup is not None
    return abs(rounds.speedup.estimate / truth(gpu) - 1)


@pytest.mark.parametrize("memory", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("seconds", [5.0, 10.0])
def test_each_model_meets_its_own_clocks_at_the_power_limit(memory: float, seconds: float):
    gpu = SimulatedGpu(CAP, memory)
    rounds, plan = measure(gpu, CUDA, seconds)
    assert error(gpu, rounds) < PRECISION
    assert rounds.stop == "precision"
    assert not plan.shortened


@pytest.mark.parametrize("memory", [0.03, 0.1])
def test_the_blocks_of_a_cpu_would_time_both_at_clocks_between_their_own(memory: float):
    gpu = SimulatedGpu(CAP, memory)
    assert error(gpu, measure(gpu, SHORT)[0]) > 3 * PRECISION


def test_a_gpu_is_warmed_up_under_load_and_sampled_for_seconds():
    gpu = SimulatedGpu()
    clock = CudaClock(gpu, gpu.now)
    model = gpu.workload(1e-4)
    calls = warm_up(clock, model, seconds=0.0, pacing=CUDA)
    assert sum(calls) >= 0.9 * CUDA.warm_up
    start = gpu.now()
    measure(gpu, CUDA)
    assert gpu.now() - start >= 2 * CUDA.warm_up + CUDA.sampling


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_with_less_time_the_turns_are_shorter_and_the_power_limit_is_flagged(seconds: float):
    gpu = SimulatedGpu(CAP)
    rounds, plan = measure(gpu, CUDA, seconds)
    assert plan.shortened
    assert len(rounds.baseline) >= MIN_ROUNDS
    assert gpu.now() < 2 * CUDA.warm_up + 1.1 * seconds
    for state, flagged in (
        ({"throttle_reasons": ["software power cap"]}, True),
        ({"throttle_reasons": []}, False),
        ({"nvml": "not available"}, True),
    ):
        kinds = {f.kind for f in find_flags(rounds, state, precision=PRECISION, shortened=plan.shortened)}
        assert ("unsettled" in kinds) is flagged
        assert "unsettled" not in {flag.kind for flag in find_flags(rounds, state, precision=PRECISION)}


@pytest.mark.parametrize(("seconds", "calls"), [(1.0, 1), (0.01, 1), (0.001, 10), (1e-7, SHORT.most_calls)])
def test_fast_calls_come_in_blocks(seconds: float, calls: int):
    assert SHORT.calls(seconds) == calls


def test_a_cpu_has_no_lead_and_keeps_its_blocks_however_short_the_time():
    paces = {role: Pace(1e-3, 2e-3) for role in ROLES}
    none = dict.fromkeys(ROLES, 0)
    assert SHORT.plan(paces, seconds=1e-3) == Plan(10, none, none, shortened=False)


def test_a_long_call_is_lead_enough():
    plan = CUDA.plan({role: Pace(2.0, 3.0) for role in ROLES}, seconds=20.0)
    assert plan.calls == 1
    assert set(plan.lead.values()) == {1}
    assert set(plan.again.values()) == {0}


def test_the_first_timed_call_is_queued_behind_the_lead():
    gpu = SimulatedGpu()
    clock = CudaClock(gpu, gpu.now)
    model = gpu.workload(1e-4, kernels=4)
    alone, queued = clock.time(model, 3), clock.time(model, 3, lead=10)
    assert alone.seconds[0] == pytest.approx(1e-4 + LATENCY, rel=0.1)
    assert queued.seconds == pytest.approx([1e-4] * 3)
    assert alone.waited[0]
    assert not any(queued.waited)


@pytest.mark.parametrize(
    ("dispatch", "kernels", "bound"),
    [(5e-6, 20, False), (9e-5, 20, True), (4e-6, 2000, False), (6e-6, 2000, True)],
)
def test_a_full_queue_is_not_taken_for_a_slow_host(dispatch: float, kernels: int, bound: bool):
    """Nor does the lead hide a host that is slow."""
    gpu = SimulatedGpu()
    clock = CudaClock(gpu, gpu.now)
    model = gpu.workload(1e-3 if kernels == 20 else 1e-2, kernels=kernels, dispatch=dispatch)
    models = dict.fromkeys(ROLES, model)
    paces = dict.fromkeys(ROLES, Pace(1e-2, 1e-2))
    rounds = sample_rounds(
        clock, models, plan=CUDA.plan(paces, 1.0), precision=1.0, seconds=1.0, max_rounds=MIN_ROUNDS
    )
    state = {"throttle_reasons": []}
    assert ("launch-bound" in {flag.kind for flag in find_flags(rounds, state, precision=1.0)}) is bound
    seconds = np.median(rounds.baseline)
    assert seconds == pytest.approx(max(kernels * dispatch, 1e-3 if kernels == 20 else 1e-2), rel=0.05)
