"""Layer norm of a feature's two halves with one common deviation (DESIGN: paper, section 4)."""

import torch
from torch import Tensor


def layer_norm_halves(
    s: Tensor, a: Tensor, gain_s: Tensor, gain_a: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Centre each half over its own channels, divide both by their common deviation, scale and shift.

    σ² = (mean(s'²) + mean(a'²) + ε) / 2 with s' = s − mean(s), a' = a − mean(a). Statistics in fp32.

    Args:
        s: symmetric half `[..., C/2]`.
        a: antisymmetric half `[..., C/2]`.
        gain_s: γ_s `[C/2]`.
        gain_a: γ_a `[C/2]`.
        bias: β `[C/2]`, on the symmetric half only: a constant cannot change its sign.
        eps: ε.

    Returns:
        Both halves in the dtype they came in.
    """
    dtype = s.dtype
    s, a = _wide(s), _wide(a)
    s = s - s.mean(-1, keepdim=True)
    a = a - a.mean(-1, keepdim=True)
    variance = s.square().mean(-1, keepdim=True) + a.square().mean(-1, keepdim=True)
    scale = torch.rsqrt((variance + eps) / 2)
    return (s * scale * gain_s + bias).to(dtype), (a * scale * gain_a).to(dtype)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
