"""Clocks, the device's state and the flags, with stand-ins for hardware that a test has not."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from flopbench.results import Interval
from flopbench.timing.clock import CpuClock, CudaClock
from flopbench.timing.device_state import CpuWatch, CudaWatch
from flopbench.timing.flags import find_flags
from flopbench.timing.sampling import Rounds
from flopbench.timing.workload import Workload


class FakeCuda:
    """Notes what is recorded and when it synchronises; each event is 1 ms after the one before."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.time = 0

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802 - torch's name
        assert enable_timing
        return FakeEvent(self)

    def synchronize(self) -> None:
        self.log.append("synchronise")


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


def workload(log: list[str]) -> Workload:
    return Workload(
        torch.nn.Identity(),
        prepare=lambda: log.append("prepare"),
        step=lambda _: log.append("step"),
        logits=lambda images: images,
    )


def test_cuda_calls_run_between_events_without_a_synchronisation():
    cuda = FakeCuda()
    seconds, host = CudaClock(cuda).time(workload(cuda.log), 3)
    assert cuda.log == ["synchronise", *["prepare", "event", "step", "event"] * 3, "synchronise"]
    assert seconds == [pytest.approx(1e-3)] * 3
    assert len(host) == 3


def test_cpu_clock_leaves_preparation_out():
    log: list[str] = []
    seconds, host = CpuClock().time(workload(log), 2)
    assert log == ["prepare", "step"] * 2
    assert all(0 < value < 0.1 for value in seconds)
    assert host == []


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
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.clock = 2000

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:  # noqa: N802
        self.clock -= 100
        return self.clock

    def nvmlDeviceGetTemperature(self, handle: int, kind: int) -> int:  # noqa: N802
        return 60

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        raise self.NVMLError

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:  # noqa: N802
        return 0x4

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return []


def test_nvml_tells_clocks_and_throttling_and_what_it_cannot_is_left_out():
    watch = CudaWatch(FakeNvml())
    watch.sample()
    state = watch.report()
    assert state["sm_mhz"] == [1700, 1900]
    assert state["throttle_reasons"] == ["software power cap"]
    assert "watts" not in state


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
    sampled = rounds(calm, calm, baseline_host=(calm * 0.1).tolist(), candidate_host=(calm * 0.97).tolist())
    flags = find_flags(sampled, {}, precision=0.01)
    assert [flag.kind for flag in flags] == ["launch-bound"]
    assert flags[0].message.startswith("candidate:")


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ({"throttle_reasons": ["software power cap"]}, "throttled"),
        ({"foreign_processes": 2}, "disturbed"),
        ({"foreign_cores": 0.9}, "disturbed"),
    ],
)
def test_a_disturbed_device_is_flagged_with_a_remedy(calm: np.ndarray, state: dict[str, Any], kind: str):
    (flag,) = find_flags(rounds(calm, calm), state, precision=0.01)
    assert flag.kind == kind
    assert flag.remedy
