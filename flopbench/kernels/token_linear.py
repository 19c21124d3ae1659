"""Affine map of the tokens, the same for every channel: ResMLP's mixing layer.

A GPU's library wants rows of 16 bytes and multiples of them. The 196 tokens of an image of 224 pixels are
none in 16-bit types, the 98 of either half none in fp32 either. So there the weight gets zeros for rows up to
a multiple of 8, and lies column by column: then the weight, the features and the result all have such rows,
no feature is copied, and the result's last rows are cut off. It costs 2 % more arithmetic for 196 tokens, 6 %
for 98. In bf16 that is faster at every size that was timed (reports/gpu-h200.md); inductor's own padding
(`shape_padding`) passes these products over, for they are bound by memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.kernels.autocast import autocast

MULTIPLE = 8
"""Elements in a 16-bit type that take 16 bytes."""


def token_linear(x: Tensor, weight: Tensor, bias: Tensor | None, tokens: int) -> Tensor:
    """weight · x + bias over the tokens, without transposing the features to and fro.

    Args:
        x: `[B, N, C]`.
        weight: `[M, N]`, or what `aligned` made of it.
        bias: `[M]` or None.
        tokens: M.

    Returns:
        `[B, M, C]`.
    """
    # Before it is one for each sample: what autocast casts it copies.
    (weight,) = autocast(aligned(weight))
    of_each = weight.expand(x.shape[0], -1, -1)
    if weight.shape[0] == tokens and bias is not None:
        return torch.baddbmm(bias.unsqueeze(-1), of_each, x)
    y = torch.bmm(of_each, x)[:, :tokens]
    return y if bias is None else y + bias.unsqueeze(-1).to(y.dtype)


def aligned(weight: Tensor) -> Tensor:
    """A square weight as a GPU's library takes it fastest: itself or, on a GPU, `padded`. Once is enough."""
    return padded(weight) if weight.is_cuda and weight.shape[0] % MULTIPLE else weight


def padded(weight: Tensor) -> Tensor:
    """`[M, N]` to `[M', N]`, dense in columns, with zeros for rows up to the next multiple of 8."""
    return F.pad(weight.t(), (0, -weight.shape[0] % MULTIPLE)).t()
