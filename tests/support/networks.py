"""Networks that are measured in a moment, under names that suites can hold."""

import os
import signal
import sys
import time

import torch
from torch import Tensor, nn

SMALL = "tests.support.networks:small"
LAZY = "tests.support.networks:lazy"
LARGE = "tests.support.networks:large"


def _network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 8, stride=8), nn.Flatten(), nn.LazyLinear(width), nn.GELU(), nn.LazyLinear(10)
    )


def _built(width: int) -> nn.Module:
    network = _network(width)
    network(torch.zeros(1, 3, 32, 32, device=next(network.parameters()).device))
    return network


def small() -> nn.Module:
    return _built(8)


def large() -> nn.Module:
    return _built(64)


class Misbehaving(nn.Module):
    """A network whose forward pass does what its name says, once it is trained or timed."""

    def __init__(self, deed: str) -> None:
        super().__init__()
        self.deed = deed
        self.linear = nn.Linear(3 * 32 * 32, 10)

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "meta" and not torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            if self.deed == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.deed == "leave":
                sys.exit(3)
            if self.deed == "abort":
                os.abort()
            if self.deed == "hang":
                time.sleep(60)
            if self.deed == "memory":
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            if self.deed == "nan":
                return self.linear(images.flatten(1)) * float("nan")
        return self.linear(images.flatten(1))


def crash() -> nn.Module:
    return Misbehaving("crash")


def leave() -> nn.Module:
    return Misbehaving("leave")


def abort() -> nn.Module:
    return Misbehaving("abort")


def hang() -> nn.Module:
    return Misbehaving("hang")


def memory() -> nn.Module:
    return Misbehaving("memory")


def nan() -> nn.Module:
    return Misbehaving("nan")


class OnlyRight(nn.Module):
    """Sees the right half of an image only: certainly not invariant."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images[..., 16:].flatten(1))


def lazy() -> nn.Module:
    """A network whose weights have no shape before its first call."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))
