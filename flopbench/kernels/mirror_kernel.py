"""Convolution kernels of odd width built from their left half (paper: see `symmetries.flop`)."""

import torch
from torch import Tensor


def symmetric_kernel(half: Tensor) -> Tensor:
    """[w, centre, mirror(w)]: `[..., (K+1)/2]`, the centre column last, to `[..., K]`."""
    return torch.cat([half, half[..., :-1].flip(-1)], dim=-1)


def antisymmetric_kernel(half: Tensor) -> Tensor:
    """[w, 0, −mirror(w)]: `[..., (K−1)/2]` to `[..., K]`."""
    return torch.cat([half, half.new_zeros(*half.shape[:-1], 1), -half.flip(-1)], dim=-1)
