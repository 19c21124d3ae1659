"""A residual branch with layer scale, added in one pass."""

import torch
from torch import Tensor


def add_scaled(x: Tensor, branch: Tensor, gamma: Tensor | None) -> Tensor:
    """x + γ · branch: `[..., C]`, `[..., C]` and `[C]` to `[..., C]`; γ None stands for 1."""
    return x + branch if gamma is None else torch.addcmul(x, branch, gamma)
