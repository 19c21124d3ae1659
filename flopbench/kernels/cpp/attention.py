"""Attention straight from the parts of a feature, [qkv] or [s, a], in C++.

For heads of few tokens and channels torch's operator multiplies blocks that are too small for its library,
and the halves of an equivariant feature have to be put side by side for it. Here a head is gathered in blocks
that stay in the cache.
"""

import torch
from torch import Tensor

from flopbench.kernels.cpp import load

torch.library.define("flopbench::attention_parts", "(Tensor[] qkv, int heads) -> Tensor[]")
torch.library.define(
    "flopbench::attention_parts_backward",
    "(Tensor[] grads, Tensor[] qkv, Tensor[] mixed, Tensor normaliser, int heads) -> Tensor[]",
)


def attention_parts(qkv: list[Tensor], heads: int) -> list[Tensor]:
    """softmax(q kᵀ/√d) v of heads that are the concatenation of the same head of all parts.

    Args:
        qkv: `[B, N, 3·C_p]` each, fp32 or fp64, channels ordered (q, k, v) × head × C_p/heads.
        heads: how many.

    Returns:
        What is mixed, `[B, N, C_p]` for each part, and the log of the sum of each row of exponentials,
        `[B, heads, N]`, which the gradient needs.
    """
    load()
    return torch.ops.flopbench.attention_parts.default(qkv, heads)


@torch.library.register_fake("flopbench::attention_parts")
def _(qkv, heads):  # noqa: ANN001
    batch, tokens, _ = qkv[0].shape
    mixed = [x.new_empty(batch, tokens, x.shape[2] // 3) for x in qkv]
    return [*mixed, qkv[0].new_empty(batch, heads, tokens)]


@torch.library.register_fake("flopbench::attention_parts_backward")
def _(grads, qkv, mixed, normaliser, heads):  # noqa: ANN001
    return [x.new_empty(x.shape) for x in qkv]
