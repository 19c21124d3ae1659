"""What flopbench's own operators cost: from their arguments, with shapes in the places of tensors.

Names are those of `torch.ops.flopbench`; an operator is met only once the file with its kernel is imported.
Forward, elementwise operations are those of the eager ones; the gradients' are the kernels' own, which are
fewer than what autograd makes of the eager ones.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from flopbench.cost import elements, gelu_operations, layer_norm_operations, transform_operations
from flopbench.flops.operators import (
    Shape,
    attention_backward_elementwise,
    attention_elementwise,
    convolution,
)

Shapes = Sequence[Shape]


def linear_parts(x: Shapes, weight: Shapes, of: Sequence[int], *rest: Any) -> int:
    """MACs of the products of parts `[..., in_p]` with their weights `[out_p, in_p]`."""
    return sum(prod(part) * weight[which][0] for part, which in zip(x, of, strict=True))


def _linear_parts_backward(
    grads: Shapes, x: Shapes, weight: Shapes, of: Sequence[int], biased: Sequence[int], features: bool
) -> int:
    return (1 + features) * linear_parts(x, weight, of)


def attention_parts(qkv: Shapes, *rest: Any) -> int:
    """MACs of attention from the parts of query, key and value together, `[B, N, 3·C_p]` each."""
    batch, tokens, _ = qkv[0]
    return 2 * batch * tokens**2 * sum(part[-1] // 3 for part in qkv)


def _attention_parts_backward(grads: Shapes, qkv: Shapes, *rest: Any) -> int:
    # As `operators.attention_backward` has it: the scores once more, then each product twice.
    return attention_parts(qkv) * 5 // 2


def _heads(qkv: Shapes, heads: int) -> tuple[Shape, Shape]:
    # Those of query and key.
    batch, tokens, _ = qkv[0]
    shape = batch, heads, tokens, sum(part[-1] for part in qkv) // (3 * heads)
    return shape, shape


def _attention(qkv: Shapes, heads: int) -> int:
    return attention_elementwise(*_heads(qkv, heads))


def _attention_backward(grads: Shapes, qkv: Shapes, mixed: Shapes, log: Shape, heads: int) -> int:
    return attention_backward_elementwise(*_heads(qkv, heads))


def _gelu(
    parts: Shapes, slices: Sequence[int], order: Sequence[int], signs: Sequence[int], kind: str = "gelu"
) -> int:
    return elements(map(tuple, parts)) // len(signs) * gelu_operations(kind, tuple(signs))


def _gelu_backward(
    parts: Shapes,
    grads: Shapes,
    slices: Sequence[int],
    order: Sequence[int],
    signs: Sequence[int],
    kind: str = "gelu",
) -> int:
    # The gradient goes there once more and multiplies.
    more = len(signs) + transform_operations(tuple(signs))
    return _gelu(parts, slices, order, signs, kind) + elements(map(tuple, parts)) // len(signs) * more


def _linear_gelu(
    x: Shapes,
    weight: Shapes,
    of: Sequence[int],
    bias: Shapes,
    biased: Sequence[int],
    slices: Sequence[int],
    order: Sequence[int],
    signs: Sequence[int],
    kind: str = "gelu",
) -> int:
    hidden = [(*part[:-1], weight[i][0]) for part, i in zip(x, of, strict=True)]
    # In C++ it has no GELU without a transform.
    return _gelu(hidden, slices, order, signs, kind) if signs else 0


def _layer_norm(
    x: Shapes, branch: Shapes, gammas: Shapes, affine: Shapes, dimensions: Sequence[int], eps: float
) -> int:
    parts = [tuple(part) for part in x]
    added = (bool(branch) + bool(gammas)) * elements(parts)
    return layer_norm_operations(parts, dimensions) + added


def _layer_norm_backward(
    grads: Shapes, x: Shapes, branch: Shapes, gammas: Shapes, gains: Shapes, *rest: Any
) -> int:
    # A branch's gradient and its scale's; both it and the sums' other uses are added.
    more = (len(grads) > len(x)) + 3 * bool(branch)
    return (8 + more) * elements(tuple(part) for part in x)


Costs = Callable[..., int]

MACS: dict[str, Costs] = {
    "linear_parts": linear_parts,
    "linear_parts_backward": _linear_parts_backward,
    "tiled_linear_parts": linear_parts,
    "linear_gelu": linear_parts,
    "attention_parts": attention_parts,
    "attention_parts_backward": _attention_parts_backward,
    "flash_attention_parts": attention_parts,
    "flash_attention_parts_backward": _attention_parts_backward,
    "depthwise": lambda x, kernel, *rest: convolution(kernel, x, x),
    "depthwise_weight_gradient": lambda x, grad, size: prod(x) * size**2,
}
"""Operator → its MACs."""

ELEMENTWISE: dict[str, Costs] = {
    "linear_parts": _linear_gelu,
    "linear_gelu": _linear_gelu,
    "attention_parts": _attention,
    "attention_parts_backward": _attention_backward,
    "flash_attention_parts": _attention,
    "flash_attention_parts_backward": _attention_backward,
    "gelu_parts": _gelu,
    "gelu_parts_backward": _gelu_backward,
    "gelu": _gelu,
    "gelu_backward": _gelu_backward,
    "layer_norm_rows": _layer_norm,
    "layer_norm_parts": _layer_norm,
    "layer_norm_parts_backward": _layer_norm_backward,
}
"""Operator → its elementwise and normalisation operations."""
