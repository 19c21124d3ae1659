"""Clocks: seconds of one call on the device, and of its dispatch by the host."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from flopbench.cells import DeviceKind
from flopbench.timing.workload import Workload


class Clock(Protocol):
    """Times `calls` calls of a workload, one after another."""

    def time(self, workload: Workload, calls: int) -> tuple[list[float], list[float]]:
        """(device seconds, host seconds of the dispatch) of each call; the second is empty on a CPU."""
        ...

    def synchronise(self) -> None:
        """Wait until the device has nothing left to do."""
        ...


class CpuClock:
    """`perf_counter_ns` around each call. Nothing is ever queued, so nobody glances at it."""

    glance: Callable[[], object] | None = None

    def time(self, workload: Workload, calls: int) -> tuple[list[float], list[float]]:
        """See `Clock.time`."""
        seconds = []
        for _ in range(calls):
            prepared = workload.prepare()
            start = time.perf_counter_ns()
            workload.step(prepared)
            seconds.append((time.perf_counter_ns() - start) * 1e-9)
        return seconds, []

    def synchronise(self) -> None:
        """A CPU call has ended when it returns."""


class CudaClock:
    """A pair of events around each call, read after the last one: no synchronisation inside the region.

    `cuda` is the module with `Event` and `synchronize`; tests give a stand-in. `glance`, where there is one,
    is called while the device has work queued, outside of what is timed.
    """

    def __init__(self, cuda: Any = torch.cuda) -> None:
        self.cuda = cuda
        self.glance: Callable[[], object] | None = None

    def time(self, workload: Workload, calls: int) -> tuple[list[float], list[float]]:
        """See `Clock.time`."""
        events = [
            (self.cuda.Event(enable_timing=True), self.cuda.Event(enable_timing=True)) for _ in range(calls)
        ]
        host = []
        # The device is idle when the region starts, so the first call does not wait for older work.
        self.cuda.synchronize()
        for start, end in events:
            prepared = workload.prepare()
            begin = time.perf_counter_ns()
            start.record()
            workload.step(prepared)
            end.record()
            host.append((time.perf_counter_ns() - begin) * 1e-9)
            if self.glance:
                self.glance()
        # Graphs and small batches are dispatched long before they have run.
        while self.glance and not events[-1][1].query():
            self.glance()
            time.sleep(1e-3)
        self.cuda.synchronize()
        return [start.elapsed_time(end) * 1e-3 for start, end in events], host

    def synchronise(self) -> None:
        """See `Clock.synchronise`."""
        self.cuda.synchronize()


CLOCKS: dict[DeviceKind, Callable[[], CpuClock | CudaClock]] = {"cpu": CpuClock, "cuda": CudaClock}
