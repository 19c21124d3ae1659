"""Fused versions in Triton, one file an op, beside the eager ones in `flopbench.kernels` that specify them.

Forward each has been timed by itself on an H200 (reports/gpu-h200.md); gradients have not, nor has a network
in a CUDA graph. Each compiles for an H100 (tests/kernels/hopper.py). What is said of speed is arithmetic: the
bytes that each moves, against those of the eager operations. Each is an operator
(`flopbench.kernels.operator`), opaque to compilers: `triton_op` would show inductor the kernel, but inductor
fuses nothing into it. Without a GPU the kernels are tested in Triton's interpreter (TRITON_INTERPRET=1 before
this is imported).
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.runtime.errors import OutOfResources

from flopbench.errors import FlopbenchError

INTERPRETED: bool = knobs.runtime.interpret
"""Whether kernels run in Triton's interpreter, on tensors of any device. Decided when they are defined."""


def wide(x: Tensor) -> tl.dtype:
    """The dtype that a kernel computes in: fp32, or fp64 for fp64."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def launch(kernel: Any, grid: Any, on: Tensor, *args: Any, **meta: Any) -> None:
    """Run a kernel on the device of `on`; the kernel takes tensors to be dense unless it says more.

    Raises:
        FlopbenchError: a program of it wants more of the device than there is.
    """
    try:
        with torch.cuda.device_of(on) if _several_devices() else nullcontext():
            kernel[grid](*args, **meta)
    except OutOfResources as error:
        short = f"{error.name}: {error.required} wanted, {error.limit} there"
        name = torch.cuda.get_device_name(on.device)
        raise FlopbenchError(
            f"a Triton kernel does not fit {name} ({short}); use impl='auto' or 'eager'"
        ) from error


class Slices(NamedTuple):
    """Where equal slices of channels are, which parts of whatever widths consist of.

    Attributes:
        part: which part.
        at: which of the part's slices.
        of: how many it has.
    """

    part: tuple[int, ...]
    at: tuple[int, ...]
    of: tuple[int, ...]

    @classmethod
    def of_parts(cls, counts: Sequence[int], order: Sequence[int] | None = None) -> "Slices":
        """Of parts of so many slices, one part after the other, or in another order of these."""
        places = [(part, at, count) for part, count in enumerate(counts) for at in range(count)]
        return cls(*zip(*(places if order is None else [places[k] for k in order]), strict=True))

    def of_each(self, tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """For each slice the part that it is of, dense; nothing of no parts."""
        parts = [x.contiguous() for x in tensors]
        return tuple(parts[p] for p in self.part) if parts else ()


@cache
def _several_devices() -> bool:
    # Of one there is nothing to switch to, and the switch costs as much as the rest of this function.
    return torch.cuda.device_count() > 1


def tiles(length: int, size: int) -> int:
    """How many tiles of `size` cover `length`. Triton's own costs more, for it is made for kernels too."""
    return -(-length // size)


@cache
def programs(device: torch.device, most: int) -> int:
    """How many programs fill the device twice, `most` at the most: for kernels that loop over their work."""
    if device.type != "cuda":
        return min(most, 3)
    return min(most, 2 * torch.cuda.get_device_properties(device).multi_processor_count)


@triton.jit
def _add(x, y):  # noqa: ANN001
    return x + y


@triton.jit
def total(x, axis):  # noqa: ANN001, ANN201
    """The sum over an axis, which stays with length 1."""
    # Not tl.sum: that was defined when triton was imported, and may not know of the interpreter.
    return tl.reduce(x, axis, _add, keep_dims=True)
