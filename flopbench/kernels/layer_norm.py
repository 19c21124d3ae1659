"""Layer norm of a feature's two halves with one common deviation (paper: see `symmetries.flop`)."""

import torch
from torch import Tensor

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import Operation, choose, inductor, triton
from flopbench.kernels.inductor import compiled
from flopbench.kernels.residual import add_scaled


def layer_norm_halves(
    s: Tensor,
    a: Tensor,
    gain_s: Tensor,
    gain_a: Tensor,
    bias: Tensor,
    eps: float,
    impl: Impl = "auto",
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
        impl: what it runs as, see `flopbench.kernels.dispatch`.

    Returns:
        Both halves in the dtype they came in.
    """
    which = choose(LAYER_NORM, impl, (s, a)).name
    if which == "triton":
        from flopbench.kernels.triton import layer_norm as kernels

        return kernels.layer_norm_halves(s, a, gain_s, gain_a, bias, eps)
    if which == "inductor":
        return compiled(norm_halves, s)(s, a, gain_s, gain_a, bias, eps)
    return norm_halves(s, a, gain_s, gain_a, bias, eps)


def norm_halves(
    s: Tensor, a: Tensor, gain_s: Tensor, gain_a: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """What `layer_norm_halves` computes, in torch's operators."""
    dtype = s.dtype
    s, a = _wide(s), _wide(a)
    s = s - s.mean(-1, keepdim=True)
    a = a - a.mean(-1, keepdim=True)
    variance = s.square().mean(-1, keepdim=True) + a.square().mean(-1, keepdim=True)
    scale = torch.rsqrt((variance + eps) / 2)
    return (s * scale * gain_s + bias).to(dtype), (a * scale * gain_a).to(dtype)


def add_layer_norm_halves(
    s: Tensor,
    a: Tensor,
    branch_s: Tensor,
    branch_a: Tensor,
    gamma_s: Tensor | None,
    gamma_a: Tensor | None,
    gain_s: Tensor,
    gain_a: Tensor,
    bias: Tensor,
    eps: float,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Add a residual branch to each half, `add_scaled`, and normalise the sums, `layer_norm_halves`.

    Args:
        s: symmetric half `[..., C/2]`.
        a: antisymmetric half `[..., C/2]`.
        branch_s: what is added to s `[..., C/2]`.
        branch_a: what is added to a `[..., C/2]`.
        gamma_s: its scale `[C/2]`; None stands for 1.
        gamma_a: the same for a, None if that is.
        gain_s: γ_s of the norm `[C/2]`.
        gain_a: γ_a of the norm `[C/2]`.
        bias: β of the norm `[C/2]`.
        eps: ε of the norm.
        impl: what it runs as, see `flopbench.kernels.dispatch`.

    Returns:
        Both sums, then the norms of both.
    """
    given = s, a, branch_s, branch_a, gamma_s, gamma_a, gain_s, gain_a, bias, eps
    which = choose(ADD_LAYER_NORM, impl, (s, a, branch_s, branch_a)).name
    if which == "triton":
        from flopbench.kernels.triton import layer_norm as kernels

        return kernels.add_layer_norm_halves(*given)
    if which == "inductor":
        return compiled(add_norm_halves, s)(*given)
    return add_norm_halves(*given)


def add_norm_halves(
    s: Tensor,
    a: Tensor,
    branch_s: Tensor,
    branch_a: Tensor,
    gamma_s: Tensor | None,
    gamma_a: Tensor | None,
    gain_s: Tensor,
    gain_a: Tensor,
    bias: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `add_layer_norm_halves` computes, in torch's operators."""
    s, a = add_scaled(s, branch_s, gamma_s), add_scaled(a, branch_a, gamma_a)
    return s, a, *norm_halves(s, a, gain_s, gain_a, bias, eps)


LAYER_NORM = Operation("layer_norm", norm_halves, (triton("2"), inductor("2")))
"""Of one part it is `torch.nn.LayerNorm`, one kernel already."""

ADD_LAYER_NORM = Operation("add_layer_norm", add_norm_halves, (triton("4"), inductor("4")), composed=True)
"""Its parts are both halves of the feature and of the branch."""


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
