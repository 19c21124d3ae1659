"""A depthwise convolution whose kernel's gradient is computed in C++.

That is a sum over all pixels for each channel and tap: with the pixels of a few channels in the cache it
reads each feature once. At 8 × 14 × 14 × 768 and 7 × 7 taps these are 118 MFLOP and 9.6 MB.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from flopbench.kernels.cpp import load
from flopbench.kernels.depthwise import convolve


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None, contiguous: bool) -> Tensor:
    """See `flopbench.kernels.depthwise`. Fp32 and fp64."""
    load()
    return _depthwise(x, kernel, bias, contiguous)


@custom_op("flopbench::depthwise", mutates_args=(), device_types="cpu")
def _depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None, contiguous: bool) -> Tensor:
    _check(x, kernel)
    x = x.contiguous()
    return _laid_out(convolve(x, kernel, bias, contiguous), contiguous)


torch.library.define("flopbench::depthwise_weight_gradient", "(Tensor x, Tensor grad, int size) -> Tensor")


def weight_gradient(x: Tensor, grad: Tensor, size: int) -> Tensor:
    """The gradient of the kernels `[C, 1, size, size]` of a depthwise convolution padded to the same shape.

    Args:
        x: what was convolved, `[B, H, W, C]`, fp32 or fp64.
        grad: the gradient of the result, the same shape.
        size: K, odd.
    """
    load()
    return torch.ops.flopbench.depthwise_weight_gradient.default(x, grad, size)


@torch.library.register_fake("flopbench::depthwise_weight_gradient")
def _(x, grad, size):  # noqa: ANN001
    return x.new_empty(x.shape[3], 1, size, size)


def _check(x: Tensor, kernel: Tensor) -> None:
    """Raise unless the result is of the shape of `x`."""
    channels, size = x.shape[-1], kernel.shape[-1]
    if kernel.shape != (channels, 1, size, size) or size % 2 == 0:
        raise ValueError(f"kernels [{channels}, 1, K, K] of odd K, got {list(kernel.shape)}")


def _laid_out(y: Tensor, contiguous: bool) -> Tensor:
    """`[B, H, W, C]`, dense, or where the convolution ran so, with channels before pixels."""
    return y.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) if contiguous else y.contiguous()


@_depthwise.register_fake
def _(x, kernel, bias, contiguous):  # noqa: ANN001
    _check(x, kernel)
    return _laid_out(x.new_empty(x.shape), contiguous)


def _context(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, kernel, _, ctx.contiguous = inputs
    ctx.save_for_backward(x, kernel)


def _gradient(ctx: Any, grad: Tensor) -> Any:
    x, kernel = ctx.saved_tensors
    for_x, for_kernel, for_bias, _ = ctx.needs_input_grad
    grad_x = convolve(grad, kernel.flip(2, 3), None, ctx.contiguous) if for_x else None
    grad_kernel = weight_gradient(x, grad, kernel.shape[-1]) if for_kernel else None
    return grad_x, grad_kernel, grad.sum((0, 1, 2)) if for_bias else None, None


_depthwise.register_autograd(_gradient, setup_context=_context)
