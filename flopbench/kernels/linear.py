"""The linear maps of a feature's parts, and the first half of an MLP (paper: see `symmetries.flop`).

In fp32, on a CPU where it was found faster, all parts are computed in one call in C++; without gradients the
GELU too, in the cache (`kernels.cpp.linear`). For the first product of the MLPs of ViT-S and B, 8 × 197
tokens, torch 2.13, two cores (tests/benchmarks/test_kernels.py), X and halves alike, it is 1.00 to 1.03 times
as fast as MKL's product on an Intel Xeon, with the GELU 1.12 to 1.27 times as fast as MKL's and inductor's
(one run). On an AMD EPYC it was 1.05 to 1.25 and 1.2 to 1.37 times (five runs), when threads packed all
weights together; it has not been measured there since.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import autocast, parts_in_cpp, version
from flopbench.kernels.mirror_gelu import Activation, mirror_gelu

CHANNELS = 16
"""Products in C++ compute multiples of it: the lanes of the widest vector."""


def linear_parts(
    parts: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    impl: Impl = "auto",
    *,
    gelu: bool = False,
) -> list[Tensor]:
    """x_p W_pᵀ + b_p for every part of a feature.

    Args:
        parts: `[..., in]` each.
        weights: `[out, in]` each; one a part, or one for every so many parts in a row.
        biases: `[out]` or None for each part.
        impl: the version that runs. On a GPU it is always the library's; Triton has `linear_halves`.
        gelu: follow with the exact GELU, in mirror pairs if there are several parts. Only where
            `in_one_call`.

    Returns:
        `[..., out]` for each part.
    """
    if in_one_call(parts, weights, biases, impl, gelu=gelu):
        from flopbench.kernels.cpp import linear as kernels

        biased = [p for p, bias in enumerate(biases) if bias is not None]
        present = [bias for bias in biases if bias is not None]
        return kernels.linear_parts(list(parts), list(weights), present, biased, gelu)
    assert not gelu
    shared = len(parts) // len(weights)
    return [F.linear(x, weights[p // shared], b) for p, (x, b) in enumerate(zip(parts, biases, strict=True))]


def in_one_call(
    parts: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    impl: Impl,
    *,
    gelu: bool = False,
) -> bool:
    """Whether C++ computes `linear_parts`.

    It does where it does for parts (`dispatch.parts_in_cpp`), without autocast, for whole vectors of
    channels. With gradients it does without the GELU, if all parts and weights have them.
    """
    x, weight = parts[0], weights[0]
    return (
        weight.shape[0] % CHANNELS == weight.shape[1] % CHANNELS == 0
        and x.dtype == weight.dtype
        and (not _differentiated(*parts, *weights, *biases) or not (gelu or _frozen(*parts, *weights)))
        and not torch.is_autocast_enabled("cpu")
        and parts_in_cpp(impl, parts)
    )


def _frozen(*tensors: Tensor) -> bool:
    return not all(x.requires_grad for x in tensors)


def _differentiated(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


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
        impl: the version that runs; "auto" on a GPU is the eager one, two products of the library, against
            which the kernel has not been measured there.

    Returns:
        Both halves `[..., out/2]`.
    """
    if impl == "fused" and version(impl, s, a) == "triton":
        from flopbench.kernels.triton import linear as kernels

        s, a, weight_s, weight_a = autocast(s, a, weight_s, weight_a)
        return kernels.linear_halves(s, a, weight_s, weight_a, bias)
    s, a = linear_parts((s, a), (weight_s, weight_a), (bias, None), impl)
    return s, a


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
    if impl == "fused" and not _differentiated(*given, bias) and version(impl, s, a) == "triton":
        from flopbench.kernels.triton import linear as kernels

        s, a, weight_s, weight_a = autocast(*given)
        return kernels.linear_gelu_halves(s, a, weight_s, weight_a, bias, kind)
    return mirror_gelu(*linear_halves(*given, bias, impl), kind, impl)
