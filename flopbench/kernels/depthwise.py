"""Depthwise convolution of channels-last features, the same for every symmetry.

The gradient of the kernel is where a CPU loses time in fp32: with it in C++, the forward pass and this
gradient are 3.8 and 5.5 times as fast as with oneDNN's in two runs, channels last 8.3 and 6.9 times (8 ×
14 × 14 × 768 features, 7 × 7 taps, two cores of an AMD EPYC, torch 2.13;
tests/benchmarks/test_kernels.py). The other gradient is a convolution like the forward one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import Choice, Operation, Why, choose, cpp, note

_NO_GRADIENT = Choice("torch", "what is in C++ is the gradient of the kernel")


def depthwise(
    x: Tensor, kernel: Tensor, bias: Tensor | None, *, contiguous: bool = False, impl: Impl = "auto"
) -> Tensor:
    """Convolve each channel with its own kernel, padded to the same shape.

    Args:
        x: `[B, H, W, C]`.
        kernel: `[C, 1, K, K]`, K odd.
        bias: `[C]` or None.
        contiguous: whether the convolution itself runs on `[B, C, H, W]` as it lies in memory.
        impl: what it runs as, see `flopbench.kernels.dispatch`; it concerns the gradient alone.

    Returns:
        `[B, H, W, C]`.
    """
    if not (torch.is_grad_enabled() and kernel.requires_grad):
        note(DEPTHWISE, _NO_GRADIENT)
    elif choose(DEPTHWISE, impl, (x,)).name == "cpp":
        from flopbench.kernels.cpp import depthwise as kernels

        return kernels.depthwise(x, kernel, bias, contiguous)
    return convolve(x, kernel, bias, contiguous)


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, contiguous: bool) -> Tensor:
    """What `depthwise` computes, by torch's convolution. Its result lies in memory as that leaves it."""
    x = x.permute(0, 3, 1, 2)
    x = x.contiguous() if contiguous else x
    # A pair, for torch.jit.trace has tensors for sizes and takes no tensor for both of them.
    border = kernel.shape[-1] // 2
    return F.conv2d(x, kernel, bias, padding=(border, border), groups=x.shape[1]).permute(0, 2, 3, 1)


def _autocast(parts: Sequence[Tensor]) -> Why:
    return "autocast" if torch.is_autocast_enabled("cpu") else ""


DEPTHWISE = Operation("depthwise", convolve, (cpp(cannot=_autocast),))
