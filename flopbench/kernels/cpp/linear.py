"""Linear maps of all parts of a feature in one call, and the GELU after them, in C++. Without gradients."""

import ctypes

import torch
from torch import Tensor
from torch.library import custom_op

from flopbench.kernels.cpp import DTYPES, library, pointers


@custom_op("flopbench::linear_parts", mutates_args=(), device_types="cpu")
def linear_parts(
    x: list[Tensor], weight: list[Tensor], bias: list[Tensor], biased: list[int], gelu: bool
) -> list[Tensor]:
    """y_p = x_p Wᵀ + b_p for every part p, or the GELU of that.

    It has no gradient: that of the GELU needs what goes into it, which is never written.

    Args:
        x: P parts `[..., in]` of one shape, fp32 or fp64.
        weight: `[out, in]` each, `out` a multiple of 16; P of them, or P/n, each for n parts in a row.
        bias: `[out]` each.
        biased: the part that each bias is for.
        gelu: of one part itself, of two halves or four quarters in mirror pairs.

    Returns:
        `[..., out]` for each part.
    """
    x, weight, bias = ([tensor.contiguous() for tensor in tensors] for tensors in (x, weight, bias))
    outputs = _outputs(x, weight)
    sizes = (ctypes.c_int64(n) for n in (len(x), outputs[0][..., 0].numel(), *weight[0].shape))
    options = ctypes.c_bool(gelu), ctypes.c_int64(torch.get_num_threads())
    weights = [weight[p * len(weight) // len(x)] for p in range(len(x))]
    present = dict(zip(biased, bias, strict=True))
    biases = [present.get(p) for p in range(len(x))]
    function = getattr(library("linear"), f"linear_{DTYPES[x[0].dtype]}")
    function(*sizes, *options, *map(pointers, (x, weights, biases, outputs)))
    return outputs


def _outputs(x: list[Tensor], weight: list[Tensor]) -> list[Tensor]:
    return [part.new_empty(*part.shape[:-1], weight[0].shape[0]) for part in x]


@linear_parts.register_fake
def _(x, weight, bias, biased, gelu):  # noqa: ANN001
    return _outputs(x, weight)
