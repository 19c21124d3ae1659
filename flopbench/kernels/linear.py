"""The block-diagonal map of both halves, and the first half of an MLP (DESIGN: linear, section 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import autocast, version
from flopbench.kernels.mirror_gelu import Activation, mirror_gelu


def linear_halves(
    s: Tensor, a: Tensor, weight_s: Tensor, weight_a: Tensor, bias: Tensor | None, impl: Impl = "auto"
) -> tuple[Tensor, Tensor]:
    """s ↦ W_s s + b, a ↦ W_a a.

    Args:
        s: symmetric half `[..., in/2]`.
        a: antisymmetric half `[..., in/2]`.
        weight_s: W_s `[out/2, in/2]`.
        weight_a: W_a `[out/2, in/2]`.
        bias: b `[out/2]` or None.
        impl: the version that runs; "auto", and "fused" on a CPU, is the eager one, two products of the
            library, against which the kernel has not been measured on a GPU.

    Returns:
        Both halves `[..., out/2]`.
    """
    if impl == "fused" and version(impl, s, a) == "triton":
        from flopbench.kernels.triton import linear as kernels

        s, a, weight_s, weight_a = autocast(s, a, weight_s, weight_a)
        return kernels.linear_halves(s, a, weight_s, weight_a, bias)
    return F.linear(s, weight_s, bias), F.linear(a, weight_a)


def linear_gelu_halves(
    s: Tensor,
    a: Tensor,
    weight_s: Tensor,
    weight_a: Tensor,
    bias: Tensor | None,
    kind: Activation = "gelu",
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """`mirror_gelu` of `linear_halves`; fused and without gradients in one kernel.

    Gradients need what goes into the GELU: it has to be written then, and there are two kernels.
    """
    given = s, a, weight_s, weight_a
    differentiated = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (*given, bias)
    )
    if impl == "fused" and not differentiated and version(impl, s, a) == "triton":
        from flopbench.kernels.triton import linear as kernels

        s, a, weight_s, weight_a = autocast(*given)
        return kernels.linear_gelu_halves(s, a, weight_s, weight_a, bias, kind)
    return mirror_gelu(*linear_halves(*given, bias, impl), kind, impl)
