"""Layer norm of a feature's two halves with one common deviation (DESIGN: paper, section 4)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import traced, version
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
        impl: the version that runs, see `flopbench.kernels.dispatch`.

    Returns:
        Both halves in the dtype they came in.
    """
    which = version(impl, s, a)
    if which == "triton":
        from flopbench.kernels.triton import layer_norm as kernels

        return kernels.layer_norm_halves(s, a, gain_s, gain_a, bias, eps)
    if which == "inductor":
        return compiled(layer_norm_halves, s)(s, a, gain_s, gain_a, bias, eps)
    if traced(impl):
        return _LayerNormHalves.apply(s, a, gain_s, gain_a, bias, eps)
    dtype = s.dtype
    s, a = _wide(s), _wide(a)
    s, a = s - _mean(s), a - _mean(a)
    scale = _scale(s, a, eps)
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
        impl: the version that runs, see `flopbench.kernels.dispatch`.

    Returns:
        Both sums, then the norms of both.
    """
    given = s, a, branch_s, branch_a, gamma_s, gamma_a, gain_s, gain_a, bias, eps
    which = version(impl, s, a, branch_s, branch_a)
    if which == "triton":
        from flopbench.kernels.triton import layer_norm as kernels

        return kernels.add_layer_norm_halves(*given)
    if which == "inductor":
        return compiled(add_layer_norm_halves, s)(*given)
    s, a = add_scaled(s, branch_s, gamma_s), add_scaled(a, branch_a, gamma_a)
    return s, a, *layer_norm_halves(s, a, gain_s, gain_a, bias, eps, "eager" if impl == "eager" else "auto")


class _LayerNormHalves(Function):
    """The norm with its gradient written out, for a compiler.

    Derived operation by operation, the gradient takes three passes over a row, and the first two write what
    the last reads. Written out it takes two, as that of torch's own layer norm does, and the sums over all
    rows can be told how to run (`_over_rows`): that is where its time was. Training a compiled E(ViT-S) at
    batch 8, 3/4 of what the norms' gradients took is left (two cores of an Intel Xeon, by hand).
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, s: Tensor, a: Tensor, gain_s: Tensor, gain_a: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        mean_s, mean_a = _mean(_wide(s)), _mean(_wide(a))
        scale = _scale(_wide(s) - mean_s, _wide(a) - mean_a, eps)
        ctx.save_for_backward(s, a, mean_s, mean_a, scale, gain_s, gain_a)
        # The statistics in it are those above: to a compiler, one and the same.
        return layer_norm_halves(s, a, gain_s, gain_a, bias, eps, "eager")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        s, a, mean_s, mean_a, scale, gain_s, gain_a = ctx.saved_tensors
        grad_s, grad_a = map(_wide, grads)
        normal_s, normal_a = (_wide(s) - mean_s) * scale, (_wide(a) - mean_a) * scale
        inner_s, inner_a = grad_s * gain_s, grad_a * gain_a
        # Of each half its own mean goes, of both together what would change their common deviation.
        share = (_mean(inner_s * normal_s) + _mean(inner_a * normal_a)) / 2
        return (
            (scale * (inner_s - _mean(inner_s) - normal_s * share)).to(s.dtype),
            (scale * (inner_a - _mean(inner_a) - normal_a * share)).to(a.dtype),
            _over_rows(grad_s * normal_s).to(gain_s.dtype),
            _over_rows(grad_a * normal_a).to(gain_a.dtype),
            _over_rows(grad_s).to(gain_s.dtype),
            None,
        )


def _mean(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


def _scale(s: Tensor, a: Tensor, eps: float) -> Tensor:
    """1/σ of centred halves."""
    return torch.rsqrt((_mean(s.square()) + _mean(a.square()) + eps) / 2)


def _over_rows(x: Tensor) -> Tensor:
    """The sum `[C]` of all rows `[..., C]`."""
    x = x.reshape(-1, x.shape[-1])
    # On a CPU inductor walks down the rows, a vector wide: a few at a time stay in the cache.
    few = 8
    if x.device.type == "cpu" and x.shape[0] % few == 0:
        x = x.reshape(x.shape[0] // few, few, x.shape[1]).sum(1)
    return x.sum(0)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
