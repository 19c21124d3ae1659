"""Linear maps of all parts of a feature in one call, and the GELU after them, in C++."""

import torch
from torch import Tensor

from flopbench.kernels.cpp import load

torch.library.define(
    "flopbench::linear_parts",
    "(Tensor[] x, Tensor[] weight, Tensor[] bias, int[] biased, bool gelu) -> Tensor[]",
)
# Gradients of the parts if they are asked for, of weights and biases; `in` is a multiple of 16 here too.
torch.library.define(
    "flopbench::linear_parts_backward",
    "(Tensor[] grads, Tensor[] x, Tensor[] weight, int[] biased, bool features) -> Tensor[]",
)


def linear_parts(
    x: list[Tensor], weight: list[Tensor], bias: list[Tensor], biased: list[int], gelu: bool
) -> list[Tensor]:
    """y_p = x_p Wᵀ + b_p for every part p, or the GELU of that.

    It has no gradient with the GELU: that needs what goes into it, which is never written.

    Args:
        x: P parts `[..., in]` of one shape, fp32 or fp64.
        weight: `[out, in]` each, `out` a multiple of 16; P of them, or P/n, each for n parts in a row.
        bias: `[out]` each.
        biased: the part that each bias is for.
        gelu: of one part itself, of two halves or four quarters in mirror pairs.

    Returns:
        `[..., out]` for each part.
    """
    load()
    return torch.ops.flopbench.linear_parts.default(x, weight, bias, biased, gelu)


@torch.library.register_fake("flopbench::linear_parts")
def _(x, weight, bias, biased, gelu):  # noqa: ANN001
    return [part.new_empty(*part.shape[:-1], weight[0].shape[0]) for part in x]


@torch.library.register_fake("flopbench::linear_parts_backward")
def _(grads, x, weight, biased, features):  # noqa: ANN001
    shapes = [tensor.shape for tensor in (*(x if features else ()), *weight)]
    return [grads[0].new_empty(shape) for shape in (*shapes, *[grads[p].shape[-1:] for p in biased])]
