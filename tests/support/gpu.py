"""A GPU in simulation: a queue of kernels, events, and clocks that follow the power drawn."""

import math
from typing import Any

import numpy as np
import torch

from flopbench.timing.workload import Workload

IDLE_WATTS = 100.0
# Launches that may be pending before the host has to wait, and seconds that it takes to record an event.
QUEUE, RECORD = 1024, 1e-6
# From the launch on an idle device to the first instruction.
LATENCY = 8e-6


class SimulatedGpu:
    """Stands in for `torch.cuda` in a `CudaClock`, and is the clock on the wall.

    What a kernel would draw at full clocks is averaged over `memory` seconds. Where the average is above the
    cap, the clocks are so much lower that it is not: power goes with the cube of the clocks.

    Args:
        cap: in watts.
        memory: the time constant of the average, in seconds.
    """

    def __init__(self, cap: float = math.inf, memory: float = 0.1) -> None:
        self.cap, self.memory = cap, memory
        self.host = self.device = 0.0
        self.demand = IDLE_WATTS
        self.ends: list[float] = []
        self.energy = [(0.0, 0.0)]

    def speed(self, demand: float) -> float:
        """The clocks, relative to full ones, at an average demand in watts."""
        return min(1.0, (self.cap / demand) ** (1 / 3))

    def launch(self, seconds: float, watts: float, dispatch: float) -> None:
        """A kernel that takes so many seconds at full clocks, and the host so many to dispatch."""
        if len(self.ends) >= QUEUE:
            self.host = max(self.host, self.ends[-QUEUE])
        self.host += dispatch
        if self.host > self.device:
            idle = self.host + LATENCY - self.device
            self._average(IDLE_WATTS, idle)
            self.device = self.host + LATENCY
            self._take(IDLE_WATTS * idle)
        taken = seconds / self.speed(self.demand)
        self._average(watts, taken)
        self.device += taken
        self.ends.append(self.device)
        self._take(min(watts, self.cap) * taken)

    def _average(self, watts: float, seconds: float) -> None:
        self.demand = watts + (self.demand - watts) * math.exp(-seconds / self.memory)

    def _take(self, joules: float) -> None:
        self.energy.append((self.device, self.energy[-1][1] + joules))

    def joules(self, refresh: float = 0.02) -> float:
        """Energy taken until now, as a counter tells it that is brought up to date now and then."""
        at, joules = zip(*self.energy, strict=True)
        return float(np.interp(self.host // refresh * refresh, at, joules))

    def sleep(self, seconds: float) -> None:
        """The host does nothing for so long."""
        self.host += seconds

    def now(self) -> float:
        """Seconds on the wall."""
        return self.host

    def synchronize(self) -> None:
        """Wait for the last kernel."""
        self.host = max(self.host, self.device)

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802 - torch's name
        """An event of this device."""
        assert enable_timing
        return _Event(self)

    def workload(self, seconds: float, watts: float = 300.0, *, kernels: int = 1, dispatch: float = 5e-6):
        """A model whose call takes so many seconds at full clocks, spread over its kernels."""

        def step(_: Any) -> None:
            for _ in range(kernels):
                self.launch(seconds / kernels, watts, dispatch)

        return Workload(torch.nn.Identity(), lambda: None, step, lambda x: x)


class _Event:
    def __init__(self, gpu: SimulatedGpu) -> None:
        self.gpu = gpu
        self.at: float | None = None

    def record(self) -> None:
        self.gpu.host += RECORD
        self.at = max(self.gpu.host, self.gpu.device)

    def query(self) -> bool:
        assert self.at is not None
        return self.at <= self.gpu.host

    def elapsed_time(self, end: "_Event") -> float:
        assert self.at is not None
        assert end.at is not None
        return (end.at - self.at) * 1e3
