"""Linear maps of all parts of a feature in one call, and the GELU after them, in C++."""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from flopbench.kernels.cpp import run

MOST_ELEMENTS = 1 << 18
"""Of a weight whose gradients C++ computes: 1 MiB in fp32.

Of the first product of an MLP they are 1.07 times as fast as MKL's on an Intel Xeon for halves of ViT-S, with
weights of 576 KiB; with 2.25 to 9 MiB, for ViT-S, ViT-B and halves of ViT-B, 0.94 to 0.99 times
(tests/benchmarks/test_kernels.py, one run).
"""


@custom_op("flopbench::linear_parts", mutates_args=(), device_types="cpu")
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
    x, weight, bias = map(_dense, (x, weight, bias))
    outputs = _outputs(x, weight[0].shape[0])
    present = dict(zip(biased, bias, strict=True))
    _multiply(x, weight, [present.get(p) for p in range(len(x))], outputs, gelu=gelu)
    return outputs


@custom_op("flopbench::linear_parts_backward", mutates_args=(), device_types="cpu")
def linear_parts_backward(grads: list[Tensor], x: list[Tensor], weight: list[Tensor]) -> list[Tensor]:
    """Gradients of the parts, then of the weights, from those of what `linear_parts` made of them.

    Args:
        grads: `[..., out]` for each part.
        x: the parts `[..., in]`, `in` a multiple of 16 too.
        weight: `[out, in]` each.
    """
    grads, x, weight = map(_dense, (grads, x, weight))
    grad_x, grad_weight = _outputs(grads, weight[0].shape[1]), _like(weight)
    _multiply(grads, weight, [None] * len(x), grad_x, transposed=True)
    sizes = len(x), len(weight), _rows(x), *weight[0].shape, torch.get_num_threads()
    run("weight_gradient", "weight_gradient", x[0].dtype, *sizes, grads, x, grad_weight)
    return [*grad_x, *grad_weight]


def _multiply(
    x: list[Tensor],
    weight: list[Tensor],
    biases: list[Tensor | None],
    outputs: list[Tensor],
    *,
    transposed: bool = False,
    gelu: bool = False,
) -> None:
    sizes = len(x), _rows(x), outputs[0].shape[-1], x[0].shape[-1]
    options = transposed, gelu, torch.get_num_threads()
    weights = [weight[p * len(weight) // len(x)] for p in range(len(x))]
    run("linear", "linear", x[0].dtype, *sizes, *options, x, weights, biases, outputs)


def _dense(tensors: list[Tensor]) -> list[Tensor]:
    return [x.contiguous() for x in tensors]


def _rows(x: list[Tensor]) -> int:
    return x[0].numel() // x[0].shape[-1]


def _outputs(x: list[Tensor], channels: int) -> list[Tensor]:
    return [part.new_empty(*part.shape[:-1], channels) for part in x]


def _like(tensors: list[Tensor]) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in tensors]


@linear_parts.register_fake
def _(x, weight, bias, biased, gelu):  # noqa: ANN001
    return _outputs(x, weight[0].shape[0])


@linear_parts_backward.register_fake
def _(grads, x, weight):  # noqa: ANN001
    return _like([*x, *weight])


def _context(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    x, weight, _, ctx.biased, gelu = inputs
    assert not gelu
    ctx.parts = len(x)
    ctx.save_for_backward(*x, *weight)


def _gradient(ctx: Any, grads: list[Tensor]) -> Any:
    x, weight = list(ctx.saved_tensors[: ctx.parts]), list(ctx.saved_tensors[ctx.parts :])
    flat = [g.flatten(0, -2) for g in grads]
    grad_bias = [flat[p].sum(0) for p in ctx.biased]
    if weight[0].numel() <= MOST_ELEMENTS:
        found = linear_parts_backward(grads, x, weight)
        return found[: ctx.parts], found[ctx.parts :], grad_bias, None, None
    common = ctx.parts // len(weight)
    products = [g.t() @ part.flatten(0, -2) for g, part in zip(flat, x, strict=True)]
    grad_weight = [sum(products[p + 1 : p + common], products[p]) for p in range(0, ctx.parts, common)]
    return [g @ weight[p // common] for p, g in enumerate(grads)], grad_weight, grad_bias, None, None


linear_parts.register_autograd(_gradient, setup_context=_context)
