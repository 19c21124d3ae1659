"""Clocks: seconds of one call on the device, and of its dispatch by the host."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch

from flopbench.modes import DeviceKind
from flopbench.timing.workload import Workload


class Timed(NamedTuple):
    """A turn of a model, in seconds.

    Attributes:
        seconds: of each timed call on the device.
        host: of the dispatch of the turn's first call, timed or not, which finds the device idle: later ones
            may be held up by a full queue. Empty on a CPU.
        waited: of each timed call, whether the device had begun it before the host had dispatched all of it.
            Of a call that it had not, the time is the device's own. Empty on a CPU.
    """

    seconds: list[float]
    host: Sequence[float] = ()
    waited: Sequence[bool] = ()


class Clock(Protocol):
    """Times calls of a workload, one after another."""

    def time(self, workload: Workload, calls: int, lead: int = 0) -> Timed:
        """Time so many calls, after `lead` calls that are not timed. No garbage is collected meanwhile."""
        ...

    def synchronise(self) -> None:
        """Wait until the device has nothing left to do."""
        ...

    def now(self) -> float:
        """The wall clock, in seconds."""
        ...


@contextmanager
def uncollected() -> Iterator[None]:
    """Within it, Python collects no garbage: that would take milliseconds of whatever call it fell into."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class CpuClock:
    """`perf_counter_ns` around each call. Nothing is ever queued, so nobody glances at it."""

    glance: Callable[[], object] | None = None

    def time(self, workload: Workload, calls: int, lead: int = 0) -> Timed:
        """See `Clock.time`."""
        seconds = []
        for _ in range(lead):
            workload.run()
        with uncollected():
            for _ in range(calls):
                prepared = workload.prepare()
                start = time.perf_counter_ns()
                workload.step(prepared)
                seconds.append((time.perf_counter_ns() - start) * 1e-9)
        return Timed(seconds)

    def synchronise(self) -> None:
        """A CPU call has ended when it returns."""

    def now(self) -> float:
        """See `Clock.now`."""
        return time.monotonic()


class CudaClock:
    """A pair of events around each call, read after the last one: no synchronisation inside the region.

    A call on an idle device would include the launch of its first kernel. The lead queues work, so that a
    device-bound call is dispatched while those before it run. It hides no host-bound one: once the queue has
    run empty, the device waits for the host in every call, and the lead is long enough for that.

    Args:
        cuda: the module with `Event` and `synchronize`; tests give a stand-in.
        now: the host's clock, in seconds.
        sleep: waits for so many seconds.

    Attributes:
        glance: called while the device has work queued, outside of what is timed; None by default.
    """

    def __init__(
        self,
        cuda: Any = torch.cuda,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.cuda, self.sleep = cuda, sleep
        self.glance: Callable[[], object] | None = None
        self.now = now
        self._pairs: list[tuple[Any, Any]] = []

    def time(self, workload: Workload, calls: int, lead: int = 0) -> Timed:
        """See `Clock.time`."""
        pairs = self._events(calls)
        host: list[float] = []
        waited: list[bool] = []
        self.cuda.synchronize()
        for _ in range(lead):
            prepared = workload.prepare()
            begun = self.now()
            workload.step(prepared)
            host.append(self.now() - begun)
            if self.glance:
                self.glance()
        with uncollected():
            for start, end in pairs:
                prepared = workload.prepare()
                begun = self.now()
                start.record()
                workload.step(prepared)
                end.record()
                host.append(self.now() - begun)
                waited.append(start.query())
        # Graphs and small batches are dispatched long before they have run.
        while self.glance and not pairs[-1][1].query():
            self.glance()
            self.sleep(1e-3)
        self.cuda.synchronize()
        return Timed([start.elapsed_time(end) * 1e-3 for start, end in pairs], host[:1], waited)

    def synchronise(self) -> None:
        """See `Clock.synchronise`."""
        self.cuda.synchronize()

    def _events(self, calls: int) -> list[tuple[Any, Any]]:
        """So many pairs. CUDA makes an event when it is first recorded, which is therefore done here."""
        while len(self._pairs) < calls:
            pair = tuple(self.cuda.Event(enable_timing=True) for _ in range(2))
            for event in pair:
                event.record()
            self._pairs.append(pair)
        return self._pairs[:calls]


CLOCKS: dict[DeviceKind, Callable[[], CpuClock | CudaClock]] = {"cpu": CpuClock, "cuda": CudaClock}
