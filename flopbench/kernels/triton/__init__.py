"""Fused versions in Triton, one file an op, beside the eager ones in `flopbench.kernels` that specify them.

None has been timed on a GPU yet; what is said of speed is arithmetic: the bytes that each moves, against
those of the eager operations. Each is a `torch.library.custom_op`, opaque to compilers: `triton_op` would
show inductor the kernel, but inductor fuses nothing into it, and before torch 2.14 it refuses kernels that
Triton's interpreter runs, which is how they are tested without a GPU (TRITON_INTERPRET=1 before the import).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether kernels run in Triton's interpreter, on tensors of any device. Decided when they are defined."""


def wide(x: Tensor) -> tl.dtype:
    """The dtype that a kernel computes in: fp32, or fp64 for fp64."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def programs(device: torch.device, most: int) -> int:
    """How many programs fill the device twice, `most` at the most: for kernels that loop over their work."""
    if device.type != "cuda":
        return min(most, 3)
    return min(most, 2 * torch.cuda.get_device_properties(device).multi_processor_count)


@triton.jit
def _add(x, y):  # noqa: ANN001
    return x + y


@triton.jit
def total(x, AXIS: tl.constexpr):  # noqa: ANN001, ANN201, N803
    """The sum over an axis, which stays with length 1."""
    # Not tl.sum: that was defined when triton was imported, and may not know of the interpreter.
    return tl.reduce(x, AXIS, _add, keep_dims=True)
