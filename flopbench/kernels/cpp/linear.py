"""Linear maps of all parts of a feature in one call, and the GELU after them, in C++."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flopbench.kernels.cpp import load
from flopbench.kernels.cpp.gelu import POINTS
from flopbench.kernels.transform import Transform

torch.library.define(
    "flopbench::linear_parts",
    f"(Tensor[] x, Tensor[] weight, int[] of, Tensor[] bias, int[] biased, {POINTS}) -> Tensor[]",
)
# Gradients of the parts if they are asked for, of weights and biases; `in` is a multiple of 16 here too.
torch.library.define(
    "flopbench::linear_parts_backward",
    "(Tensor[] grads, Tensor[] x, Tensor[] weight, int[] of, int[] biased, bool features) -> Tensor[]",
)


def linear_parts(
    x: list[Tensor],
    weight: list[Tensor],
    of: Sequence[int],
    bias: list[Tensor],
    biased: Sequence[int],
    transform: Transform | None,
) -> list[Tensor]:
    """y_p = x_p Wᵀ + b_p for every part p, with the weight that is for it, or the GELU of that.

    It has no gradient with the GELU: that needs what goes into it, which is never written.

    Args:
        x: parts `[..., in_p]` of one leading shape, fp32 or fp64.
        weight: distinct ones, `[out, in]` each, `out` a multiple of 16.
        of: which of them is each part's; all have a part.
        bias: `[out_p]` each.
        biased: the part that each bias is for.
        transform: of 1, 2, 4 or 8 points, multiples of 16 channels, for the GELU; None for none.

    Returns:
        `[..., out_p]` for each part.
    """
    load()
    points = ((), (), ()) if transform is None else (transform.slices, transform.order, transform.signs)
    return torch.ops.flopbench.linear_parts.default(x, weight, of, bias, biased, *points)


@torch.library.register_fake("flopbench::linear_parts")
def _(x, weight, of, bias, biased, slices, order, signs):  # noqa: ANN001
    return [part.new_empty(*part.shape[:-1], weight[w].shape[0]) for part, w in zip(x, of, strict=True)]


@torch.library.register_fake("flopbench::linear_parts_backward")
def _(grads, x, weight, of, biased, features):  # noqa: ANN001
    shapes = [tensor.shape for tensor in (*(x if features else ()), *weight)]
    return [grads[0].new_empty(shape) for shape in (*shapes, *[grads[p].shape[-1:] for p in biased])]
