"""Layer norm of a feature's two halves with one common deviation (paper: see `symmetries.flop`)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import Operation, choose, inductor, triton
from flopbench.kernels.inductor import compiled
from flopbench.kernels.residual import add_scaled


def layer_norm_halves(
    x: Sequence[Tensor], affine: Sequence[Tensor], eps: float, impl: Impl = "auto"
) -> tuple[Tensor, Tensor]:
    """Centre each half over its own channels, divide both by their common deviation, scale and shift.

    σ² = (mean(s'²) + mean(a'²) + ε) / 2 with s' = s − mean(s), a' = a − mean(a). Statistics in fp32.

    Args:
        x: the symmetric and the antisymmetric half `[..., C/2]`.
        affine: γ_s, γ_a and β `[C/2]`; β on the symmetric half only: a constant cannot change its sign.
        eps: ε.
        impl: what it runs as, see `flopbench.kernels.dispatch`.

    Returns:
        Both halves in the dtype they came in.
    """
    which = choose(LAYER_NORM, impl, x).name
    if which == "triton":
        from flopbench.kernels.triton import layer_norm as kernels

        s, a = kernels.layer_norm_halves(list(x), [], [], list(affine), eps)
        return s, a
    return (compiled(norm_halves, *x) if which == "inductor" else norm_halves)(x, affine, eps)


def norm_halves(x: Sequence[Tensor], affine: Sequence[Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """What `layer_norm_halves` computes, in torch's operators."""
    (s, a), (gain_s, gain_a, bias), dtype = map(_wide, x), affine, x[0].dtype
    s = s - s.mean(-1, keepdim=True)
    a = a - a.mean(-1, keepdim=True)
    variance = s.square().mean(-1, keepdim=True) + a.square().mean(-1, keepdim=True)
    scale = torch.rsqrt((variance + eps) / 2)
    return (s * scale * gain_s + bias).to(dtype), (a * scale * gain_a).to(dtype)


def add_layer_norm_halves(
    x: Sequence[Tensor],
    branch: Sequence[Tensor],
    gammas: Sequence[Tensor],
    affine: Sequence[Tensor],
    eps: float,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Add a residual branch to each half, `add_scaled`, and normalise the sums, `layer_norm_halves`.

    Args:
        x: the symmetric and the antisymmetric half `[..., C/2]`.
        branch: what is added to each `[..., C/2]`.
        gammas: its scales `[C/2]`; none stand for 1.
        affine: γ_s, γ_a and β of the norm `[C/2]`.
        eps: ε of the norm.
        impl: what it runs as, see `flopbench.kernels.dispatch`.

    Returns:
        Both sums, then the norms of both.
    """
    which = choose(ADD_LAYER_NORM, impl, (*x, *branch)).name
    if which == "triton":
        from flopbench.kernels.triton import layer_norm as kernels

        lists = list(x), list(branch), list(gammas), list(affine)
        sum_s, sum_a, s, a = kernels.layer_norm_halves(*lists, eps)
        return sum_s, sum_a, s, a
    run = compiled(add_norm_halves, *x) if which == "inductor" else add_norm_halves
    return run(x, branch, gammas, affine, eps)


def add_norm_halves(
    x: Sequence[Tensor],
    branch: Sequence[Tensor],
    gammas: Sequence[Tensor],
    affine: Sequence[Tensor],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `add_layer_norm_halves` computes, in torch's operators."""
    gamma_s, gamma_a = gammas or (None, None)
    s, a = add_scaled(x[0], branch[0], gamma_s), add_scaled(x[1], branch[1], gamma_a)
    return s, a, *norm_halves((s, a), affine, eps)


LAYER_NORM = Operation("layer_norm", norm_halves, (triton("2"), inductor("2")))
"""Of one part it is `torch.nn.LayerNorm`, one kernel already."""

ADD_LAYER_NORM = Operation("add_layer_norm", add_norm_halves, (triton("4"), inductor("4")), composed=True)
"""Its parts are both halves of the feature and of the branch."""


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
