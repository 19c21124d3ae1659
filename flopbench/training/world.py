"""The processes that train or evaluate together: one by itself, or those that `torchrun` started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from flopbench.cells import DeviceKind


@dataclass(frozen=True)
class World:
    """This process among those that work together.

    Attributes:
        device: that it computes on.
        rank: its number, from 0.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, which all of them call."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def share(self, value: object) -> object:
        """What the first process has, in all of them."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, 0, device=self.device)
        return held[0]


@contextmanager
def world(kind: DeviceKind) -> Iterator[World]:
    """This process's world: of `torchrun` where that started it, by NCCL on GPUs and gloo on CPUs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(torch.device(kind))
        return
    device = torch.device(kind)
    if kind == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield World(device, dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
