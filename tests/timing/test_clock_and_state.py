"""Clocks, the device's state and the flags, with stand-ins for hardware that a test has not."""

import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pynvml
import pytest
import torch

from flopbench.results import POWER_LIMIT, Interval
from flopbench.timing.clock import Clock, CpuClock, CudaClock
from flopbench.timing.device_state import THROTTLE_REASONS, CpuWatch, CudaWatch
from flopbench.timing.flags import find_flags
from flopbench.timing.sampling import Rounds
from flopbench.timing.workload import Workload
from tests.timing.test_energy import Clockwork


class FakeCuda:
    """Notes what is recorded and when it synchronises; each event is 1 ms after the one before."""

    def __init__(self, busy: int = 0) -> None:
        self.log: list[str] = []
        self.time = 0
        self.busy = busy
        """Times that it is asked before it has come to an event."""

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802 - torch's name
        assert enable_timing
        return FakeEvent(self)

    def synchronize(self) -> None:
        self.log.append("synchronise")

    def now(self) -> float:
        return self.time * 1e-3


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.at = 0

    def record(self) -> None:
        self.cuda.time += 1
        self.at = self.cuda.time
        self.cuda.log.append("event")

    def elapsed_time(self, end: "FakeEvent") -> float:
        return end.at - self.at

    def query(self) -> bool:
        self.cuda.log.append("query")
        return self.cuda.log.count("query") > self.cuda.busy


def workload(log: list[str]) -> Workload:
    return Workload(
        torch.nn.Identity(),
        prepare=lambda: log.append("prepare"),
        step=lambda _: log.append("step"),
        logits=lambda images: images,
    )


def test_cuda_calls_run_between_events_without_a_synchronisation():
    cuda = FakeCuda()
    clock = CudaClock(cuda)
    made = ["event"] * 6  # recorded once, which is what makes them
    lead, calls = ["prepare", "step"] * 2, ["prepare", "event", "step", "event", "query"] * 3
    for events in (made, []):
        cuda.log.clear()
        timed = clock.time(workload(cuda.log), 3, lead=2)
        assert cuda.log == [*events, "synchronise", *lead, *calls, "synchronise"]
        assert timed.seconds == [pytest.approx(1e-3)] * 3
        assert len(timed.host) == 1
        assert timed.waited == [True] * 3


@pytest.mark.parametrize("clock", [CpuClock(), CudaClock(FakeCuda())])
@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_while_calls_are_timed(clock: Clock, enabled: bool):
    seen: list[bool] = []
    looking = Workload(torch.nn.Identity(), lambda: None, lambda _: seen.append(gc.isenabled()), lambda x: x)
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        clock.time(looking, 2)
        assert gc.isenabled() is enabled
        with pytest.raises(ZeroDivisionError):
            clock.time(Workload.of(lambda: 1 / 0), 1)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert seen == [False, False]


def test_a_gpu_is_glanced_at_while_work_is_queued_and_outside_of_what_is_timed():
    cuda = FakeCuda(busy=3)
    clock = CudaClock(cuda)
    clock.glance = lambda: cuda.log.append("glance")
    assert clock.time(workload(cuda.log), 2, lead=2).waited == [False, False]
    lead, calls = ["prepare", "step", "glance"] * 2, ["prepare", "event", "step", "event", "query"] * 2
    made = ["event"] * 4
    assert cuda.log == [*made, "synchronise", *lead, *calls, "query", "glance", "query", "synchronise"]


def test_cpu_clock_leaves_preparation_out():
    log: list[str] = []
    timed = CpuClock().time(workload(log), 2)
    assert log == ["prepare", "step"] * 2
    assert all(0 < value < 0.1 for value in timed.seconds)
    assert (timed.host, timed.waited) == ((), ())


def test_foreign_load_is_what_is_busy_and_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stat = tmp_path / "stat"
    stat.write_text("cpu 100 0 0 1000 0 0 0 0 0 0\n")
    watch = CpuWatch(stat)
    stat.write_text("cpu 400 0 100 1000 0 0 0 50 0 0\n")  # 4.5 s more busy, half a second of it stolen
    watch.start -= 3.0
    watch.own -= 1.5
    state = watch.report()
    assert state["foreign_cores"] == pytest.approx(1.0, abs=0.1)


def test_no_proc_no_figure(tmp_path: Path):
    assert "foreign_cores" not in CpuWatch(tmp_path / "absent").report()


class FakeNvml:
    """A machine of `cards`, by UUID, whose times, energy and throttling the test decides.

    What a test leaves at None is not supported.
    """

    class NVMLError(Exception): ...

    def __init__(self, *cards: str) -> None:
        self.cards = cards or ("GPU-a",)
        self.clock = 2000
        self.reasons = 0x4
        self.field: int | None = None
        self.violation: int | None = None
        self.millijoules: float | None = None
        self.mig = 0
        self.pids: list[int] = []
        self.open = 0

    def __getattr__(self, name: str) -> int:
        return getattr(pynvml, name)

    def _told(self, value: Any) -> Any:
        if value is None:
            raise self.NVMLError
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return self._told(uuid if uuid in self.cards or uuid == "MIG-part" else None)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:  # noqa: N802
        return self.cards[0]

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        return [self.mig, self.mig]

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        self.clock -= 100
        return self.clock

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:  # noqa: N802
        return 60

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        raise self.NVMLError

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        raise self.NVMLError

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        return self.reasons

    def nvmlDeviceGetFieldValues(self, handle: str, fields: list[int]) -> list[Any]:  # noqa: N802
        supported = fields == [pynvml.NVML_FI_DEV_PERF_POLICY_POWER] and self.field is not None
        value = SimpleNamespace(ullVal=self.field if supported else 0)
        return [SimpleNamespace(nvmlReturn=0 if supported else 3, value=value)]

    def nvmlDeviceGetViolationStatus(self, handle: str, policy: int) -> Any:  # noqa: N802
        return SimpleNamespace(
            violationTime=self._told(self.violation if policy == pynvml.NVML_PERF_POLICY_THERMAL else None)
        )

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> float:  # noqa: N802
        return self._told(self.millijoules)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in self.pids]


def test_nvml_tells_clocks_and_what_it_cannot_is_left_out():
    now = Clockwork()
    watch = CudaWatch(FakeNvml(), now=now)
    for now.time in (0.0, 0.01, 0.3):
        watch.glance()
    state = watch.report()
    assert state["sm_mhz"] == [1700, 1900]
    assert state["throttle_reasons"] == ["software power cap"]
    assert "watts" not in state
    assert "mean_watts" not in state
    assert "foreign_processes" not in state


def test_counters_of_throttling_overrule_what_was_seen_now_and_then():
    nvml, now = FakeNvml(), Clockwork()
    nvml.field, nvml.violation = 10**12, 5 * 10**9
    watch = CudaWatch(nvml, now=now)
    nvml.reasons = 0x4 | 0x8
    watch.glance()
    now.time, nvml.violation = 2.0, 6 * 10**9
    state = watch.report()
    assert state["throttled"] == {"thermal limit": 0.5}
    # The power cap was seen, and took no time that counts; of the slowdown there is no counter.
    assert state["throttle_reasons"] == ["hardware slowdown", "thermal limit"]


@pytest.mark.parametrize(
    ("cards", "uuid", "watched"),
    [
        (("GPU-a", "GPU-b"), "b", "GPU-b"),
        (("GPU-a", "GPU-b"), "GPU-b", "GPU-b"),
        (("GPU-a", "GPU-b"), "part", "GPU-a"),
        (("GPU-a", "GPU-b"), "", None),
        (("GPU-a", "GPU-b"), "hidden", None),
        (("GPU-a",), "", "GPU-a"),
    ],
)
def test_the_card_is_found_by_its_uuid_or_is_the_only_one(
    cards: tuple[str, ...], uuid: str, watched: str | None
):
    watch = CudaWatch(FakeNvml(*cards), uuid)
    assert watch.handle == watched
    if watched is None:
        assert watch.report() == {"nvml": "not available"}


def test_others_on_the_card_are_counted_whatever_our_own_number_is():
    nvml, now = FakeNvml(), Clockwork()
    watch = CudaWatch(nvml, now=now)
    nvml.pids = [4711]
    watch.glance()
    assert watch.report()["foreign_processes"] == 0
    nvml.pids, now.time = [4711, 4712, 4713], 1.0
    watch.glance()
    assert watch.report()["foreign_processes"] == 2


def test_what_nvml_does_not_tell_costs_no_cell_whatever_it_raises():
    """E.g. the package's own error, no `NVMLError`, where the driver is older than it."""
    nvml = FakeNvml()
    nvml.millijoules = 0.0
    watch = CudaWatch(nvml)

    def raising(*_: object) -> Any:
        raise pynvml.NVMLLibraryMismatchError

    for name in vars(FakeNvml):
        if name.startswith("nvmlDevice"):
            setattr(nvml, name, raising)
    watch.glance()
    assert watch.report() == {"throttle_reasons": [], "throttled": {}}
    assert watch.power() == {}
    assert CudaWatch(nvml, "a").handle is None


def test_nvml_is_shut_down_with_the_watch():
    nvml = FakeNvml()
    watch = CudaWatch(nvml)
    assert nvml.open == 1
    del watch
    gc.collect()
    assert nvml.open == 0


def test_a_slow_driver_is_asked_less_often():
    nvml, now = FakeNvml(), Clockwork()
    nvml.millijoules = 0.0
    watch = CudaWatch(nvml, now=now)
    asked: list[float] = []

    def slow(handle: str) -> float:
        asked.append(now.time)
        now.time += 0.01
        return 0.0

    nvml.nvmlDeviceGetTotalEnergyConsumption = slow
    while now.time < 2.0:
        now.time += 0.001
        watch.glance()
    assert 5 <= len(asked) <= 10


@pytest.mark.parametrize(("mig", "known"), [(0, True), (1, False)])
def test_energy_of_the_whole_card_is_no_figure_of_a_part(mig: int, known: bool):
    nvml, now = FakeNvml(), Clockwork()
    nvml.mig = mig
    watch = CudaWatch(nvml, "a", now=now)
    with watch.turn("baseline", 10):
        for _ in range(1000):
            now.time += 0.001
            nvml.millijoules = 300e3 * now.time
            watch.glance()
    assert ("baseline" in watch.power()) == known
    assert ("mean_watts" in watch.report()) == known
    if known:
        assert watch.power()["baseline"].joules == pytest.approx(30, rel=0.03)


def test_every_name_of_nvml_is_in_the_package():
    names = {name for _, *names in THROTTLE_REASONS.values() for name in names if name}
    faked = {name for name in vars(FakeNvml) if name.startswith("nvml")}
    assert [name for name in names | faked if not hasattr(pynvml, name)] == []


def rounds(baseline: np.ndarray, candidate: np.ndarray, **fields: Any) -> Rounds:
    values = {"speedup": Interval(estimate=1.5, low=1.49, high=1.51), "stop": "precision", **fields}
    return Rounds(cast(Any, baseline.tolist()), cast(Any, candidate.tolist()), **values)


def kinds(sampled: Rounds, state: dict[str, Any] | None = None) -> set[str]:
    return {flag.kind for flag in find_flags(sampled, state or {}, precision=0.01)}


@pytest.fixture
def calm() -> np.ndarray:
    return np.random.default_rng(0).normal(1.0, 0.01, (20, 2))


def test_a_calm_cell_has_no_flags(calm: np.ndarray):
    assert kinds(rounds(calm, calm)) == set()


def test_few_rounds_and_noise_are_flagged(calm: np.ndarray):
    wide = Interval(estimate=1.5, low=1.4, high=1.6)
    assert kinds(rounds(calm[:3], calm[:3], speedup=wide, stop="time")) == {"few-rounds", "noisy"}


def test_drift_is_flagged(calm: np.ndarray):
    assert kinds(rounds(calm * np.linspace(1, 1.3, 20)[:, None], calm)) == {"drifting"}


def test_two_modes_are_flagged(calm: np.ndarray):
    jump = 1 + 0.3 * (np.random.default_rng(1).random((20, 2)) < 0.4)
    assert "bimodal" in kinds(rounds(calm * jump, calm))


def test_many_outliers_are_flagged(calm: np.ndarray):
    spoilt = calm.copy()
    spoilt[::3, 0] *= np.linspace(2, 9, len(spoilt[::3]))
    assert "outliers" in kinds(rounds(spoilt, calm))


def test_a_cell_bound_by_its_launches_is_flagged(calm: np.ndarray):
    host = {"baseline_host": (calm * 0.1).tolist(), "candidate_host": (calm * 0.97).tolist()}
    waited = dict.fromkeys(("baseline_waited", "candidate_waited"), [[True, True]] * len(calm))
    flags = find_flags(rounds(calm, calm, **host, **waited), {"throttle_reasons": []}, precision=0.01)
    assert [flag.kind for flag in flags] == ["launch-bound"]
    assert flags[0].message.startswith("candidate:")


def test_what_takes_long_to_dispatch_but_is_dispatched_in_time_is_not_bound_by_it(calm: np.ndarray):
    host = dict.fromkeys(("baseline_host", "candidate_host"), calm.tolist())
    waited = dict.fromkeys(("baseline_waited", "candidate_waited"), [[False, False]] * len(calm))
    assert kinds(rounds(calm, calm, **host, **waited), {"throttle_reasons": []}) == set()


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ({"throttle_reasons": ["hardware slowdown", "software power cap"]}, "throttled"),
        ({"throttle_reasons": ["thermal limit"], "throttled": {"thermal limit": 0.4}}, "throttled"),
        ({"foreign_processes": 2}, "disturbed"),
        ({"foreign_cores": 0.9}, "disturbed"),
    ],
)
def test_a_disturbed_device_is_flagged_with_a_remedy(calm: np.ndarray, state: dict[str, Any], kind: str):
    (flag,) = find_flags(rounds(calm, calm), state, precision=0.01)
    assert flag.kind == kind
    assert "power cap" not in flag.message
    assert flag.remedy


def test_the_power_limit_is_where_a_gpu_works_and_no_disturbance(calm: np.ndarray):
    assert (
        kinds(rounds(calm, calm), {"throttle_reasons": [POWER_LIMIT], "throttled": {POWER_LIMIT: 1.0}})
        == set()
    )
