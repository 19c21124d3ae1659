"""Affine map of the tokens, the same for every channel: ResMLP's mixing layer."""

import torch
from torch import Tensor


def token_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """weight · x + bias over the tokens, without transposing the features to and fro.

    Args:
        x: `[B, N, C]`.
        weight: `[M, N]`.
        bias: `[M]` or None.

    Returns:
        `[B, M, C]`.
    """
    weight = weight.expand(x.shape[0], -1, -1)
    if bias is None:
        return torch.bmm(weight, x)
    return torch.baddbmm(bias.unsqueeze(-1), weight, x)
