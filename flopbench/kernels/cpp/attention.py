"""Attention straight from the parts of a feature, [qkv] or [s, a], in C++.

For heads of few tokens and channels torch's operator multiplies blocks that are too small for its library,
and the halves of an equivariant feature have to be put side by side for it. Here a head is gathered once and
stays in the cache.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from flopbench.kernels.cpp import Argument, run


@custom_op("flopbench::attention_parts", mutates_args=(), device_types="cpu")
def attention_parts(qkv: list[Tensor], heads: int) -> list[Tensor]:
    """softmax(q kᵀ/√d) v of heads that are the concatenation of the same head of all parts.

    Args:
        qkv: `[B, N, 3·C_p]` each, fp32 or fp64, channels ordered (q, k, v) × head × C_p/heads.
        heads: how many.

    Returns:
        What is mixed, `[B, N, C_p]` for each part, and the log of the sum of each row of exponentials,
        `[B, heads, N]`, which the gradient needs.
    """
    qkv = [x.contiguous() for x in qkv]
    outputs = _outputs(qkv, heads)
    _call("forward", qkv, heads, qkv, outputs[:-1], outputs[-1])
    return outputs


@custom_op("flopbench::attention_parts_backward", mutates_args=(), device_types="cpu")
def attention_parts_backward(
    grads: list[Tensor], qkv: list[Tensor], mixed: list[Tensor], normaliser: Tensor, heads: int
) -> list[Tensor]:
    """Gradients of the parts, from those of what was mixed: see `attention_parts`."""
    grads, qkv, mixed = ([x.contiguous() for x in tensors] for tensors in (grads, qkv, mixed))
    normaliser = normaliser.contiguous()
    outputs = [torch.empty_like(x) for x in qkv]
    _call("backward", qkv, heads, grads, qkv, mixed, normaliser, outputs)
    return outputs


def _call(which: str, qkv: list[Tensor], heads: int, *given: Argument) -> None:
    batch, tokens, _ = qkv[0].shape
    widths = tuple(x.shape[2] // (3 * heads) for x in qkv)
    sizes = len(qkv), batch, tokens, heads, widths, torch.get_num_threads()
    run("attention", which, qkv[0].dtype, *sizes, *given)


def _outputs(qkv: list[Tensor], heads: int) -> list[Tensor]:
    batch, tokens, _ = qkv[0].shape
    mixed = [x.new_empty(batch, tokens, x.shape[2] // 3) for x in qkv]
    return [*mixed, qkv[0].new_empty(batch, heads, tokens)]


@attention_parts.register_fake
def _(qkv, heads):  # noqa: ANN001
    return _outputs(qkv, heads)


@attention_parts_backward.register_fake
def _(grads, qkv, mixed, normaliser, heads):  # noqa: ANN001
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in qkv]


def _context(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    qkv, ctx.heads = inputs
    ctx.save_for_backward(*qkv, *output)


def _gradient(ctx: Any, grads: list[Tensor]) -> Any:
    parts = len(grads) - 1
    saved = list(ctx.saved_tensors)
    return attention_parts_backward(grads[:-1], saved[:parts], saved[parts:-1], saved[-1], ctx.heads), None


attention_parts.register_autograd(_gradient, setup_context=_context)
