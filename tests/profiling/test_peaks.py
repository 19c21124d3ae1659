from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from flopbench.results import Peaks
from flopbench.timing import peaks
from flopbench.timing.peaks import measure_peaks


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "EDGES", {"cpu": (8, 16, 32, 64)})
    monkeypatch.setattr(peaks, "COPIES", {"cpu": (1 << 10, 1 << 12, 1 << 14)})


def stand_in(*seconds: float) -> Callable[[Callable[[], object], float], float]:
    """A stopwatch that runs what it is given once and reads these times in turn, the last one for ever."""
    left = list(seconds)

    def best(call: Callable[[], object], budget: float) -> float:
        call()
        return left.pop(0) if len(left) > 1 else left[0]

    return best


def test_the_matrix_rate_is_that_of_the_size_from_which_on_it_no_longer_grows():
    # 8: slow, 16: faster, 32: no faster any more, so 64 is not tried; then three copies and the launches.
    times = (2 * 8**3 / 1e9, 2 * 16**3 / 5e9, 2 * 32**3 / 4e9, 1.0, 1.0, 1.0, 2.0)
    measured = measure_peaks("cpu", ["fp32"], best=stand_in(*times))
    assert measured.flops_per_second["fp32"] == pytest.approx(5e9)
    assert measured.launch_seconds == pytest.approx(2.0 / peaks.LAUNCHES["cpu"])


def test_an_emulated_dtype_is_not_tried_at_sizes_that_take_minutes():
    measured = measure_peaks("cpu", ["fp16"], best=stand_in(1.0))
    assert measured.flops_per_second["fp16"] == pytest.approx(2 * 8**3)


def test_copies_count_reads_and_writes_and_no_cache_is_slower_than_memory():
    # The products stop after two equal rates; the smallest copy is timed too slow, by its launch.
    times = (2 * 8**3 / 1e9, 2 * 16**3 / 1e9, 1.0, 2 * (1 << 12) / 9e4, 2 * (1 << 14) / 7e4, 1.0)
    measured = measure_peaks("cpu", ["fp32"], best=stand_in(*times))
    assert measured.copy_bytes_per_second == pytest.approx(7e4)
    assert [size for size, _ in measured.cached_copies] == [2 << 10, 2 << 12]
    assert [rate for _, rate in measured.cached_copies] == pytest.approx([9e4, 9e4])


def test_the_precision_of_products_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def best(call: Callable[[], object], budget: float) -> float:
        seen.append(torch.get_float32_matmul_precision())
        return 1.0

    torch.set_float32_matmul_precision("medium")
    try:
        measure_peaks("cpu", ["fp32"], best=best)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen[0] == "highest"


def test_the_real_clock_gives_finite_rates():
    measured = measure_peaks("cpu", ["fp32", "bf16"])
    assert set(measured.flops_per_second) == {"fp32", "bf16"}
    assert all(0 < rate < float("inf") for rate in measured.flops_per_second.values())
    assert measured.copy_bytes_per_second > 0
    assert measured.launch_seconds
    assert 0 < measured.launch_seconds < 1


def test_bandwidth_is_the_smallest_cache_that_holds_the_working_set():
    known = Peaks(flops_per_second={}, copy_bytes_per_second=1.0, cached_copies=((100, 9.0), (1000, 3.0)))
    assert [known.bandwidth(size) for size in (10, 100, 101, 1000, 1001)] == [9.0, 9.0, 3.0, 3.0, 1.0]


def test_what_does_not_fit_a_small_card_ends_the_sizes_and_nothing_else():
    def short_of(rooms: int, error: Exception) -> Callable[[Callable[[], object], float], float]:
        """A stopwatch on which only so many measurements find memory, a nanosecond each."""
        left = [rooms]

        def best(call: Callable[[], object], budget: float) -> float:
            left[0] -= 1
            if left[0] < 0:
                raise error
            return 1e-9

        return best

    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
    assert peaks._matrix_rate("cpu", "fp32", short_of(2, full)) == pytest.approx(2 * 16**3 / 1e-9)
    assert peaks._copy_rates("cpu", short_of(2, full)) == [(2 << 10, 2**13 / 1e-9), (2 << 12, 2**13 / 1e-9)]
    with pytest.raises(torch.OutOfMemoryError):
        peaks._matrix_rate("cpu", "fp32", short_of(0, full))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        peaks._copy_rates("cpu", short_of(2, RuntimeError("an illegal memory access")))


class Card:
    """A host that takes 5 µs to launch a kernel, a device that takes 2 µs to run one, and their clocks."""

    def __init__(self) -> None:
        self.host, self.device, self.queued, self.most = 0.0, 0.0, 0, 0

    def launch(self, *args: object, out: object = None, seconds: float = 2e-6) -> None:
        self.host += 5e-6
        self.device = max(self.device, self.host) + seconds
        self.queued += 1
        self.most = max(self.most, self.queued)

    def synchronize(self) -> None:
        self.host, self.queued = max(self.host, self.device) + 1e-6, 0

    def event(self, *, enable_timing: bool) -> Any:
        event = SimpleNamespace(at=0.0, synchronize=self.synchronize)
        event.record = lambda: setattr(event, "at", max(self.device, self.host))
        event.elapsed_time = lambda end: 1e3 * (end.at - event.at)
        return event


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    found = Card()
    monkeypatch.setattr(torch.cuda, "Event", found.event)
    monkeypatch.setattr(torch.cuda, "synchronize", found.synchronize)
    monkeypatch.setattr(peaks.time, "perf_counter", lambda: found.host)
    monkeypatch.setattr(peaks, "hold_device", lambda cycles: found.launch(seconds=cycles / 2e9))
    monkeypatch.setattr(torch, "ones", lambda *sizes, device: None)
    monkeypatch.setattr(torch, "add", found.launch)
    return found


def test_the_cost_of_launching_is_the_hosts_and_never_that_of_a_full_queue(card: Card):
    assert peaks._launch_seconds("cuda", stand_in(0.0)) == pytest.approx(5e-6)
    assert card.most < 1024


def test_kernels_are_timed_without_the_host_between_them(card: Card):
    assert peaks._kernel_seconds(peaks._best_cuda) == pytest.approx(2e-6)
    assert peaks._best_cuda(card.launch, 1e-3) == pytest.approx(2e-6)
