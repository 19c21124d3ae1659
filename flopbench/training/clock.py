"""The clock of a training: seconds, and joules where the device tells."""

import math
import time
from typing import NamedTuple

import torch

from flopbench.timing.device_state import energy_counter
from flopbench.training.world import World


class Reading(NamedTuple):
    """What clock and counter showed at a moment; no joules where the device does not tell."""

    seconds: float
    joules: float | None


class TrainClock:
    """Is read when the device has done what it was given.

    Args:
        world: whose GPUs' energies are added up; on CPUs it is that of this machine's processors.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.energy = energy_counter(world.kind)

    def now(self) -> float:
        """The time in seconds."""
        if self.world.kind == "cuda":
            torch.cuda.synchronize(self.world.device)
        return time.perf_counter()

    def read(self) -> Reading:
        """Time and energy now."""
        return Reading(self.now(), self.energy())

    def since(self, begin: Reading) -> Reading:
        """What was taken since then; every process calls it."""
        end = self.read()
        joules = math.nan if end.joules is None or begin.joules is None else end.joules - begin.joules
        if self.world.kind == "cuda":
            joules = self.world.sum(torch.tensor(joules, device=self.world.device)).item()
        return Reading(end.seconds - begin.seconds, None if math.isnan(joules) else joules)
