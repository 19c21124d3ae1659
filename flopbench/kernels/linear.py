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

from flopbench.kernels import Impl, Name
from flopbench.kernels.autocast import autocast
from flopbench.kernels.dispatch import Operation, Why, choose, cpp, library_is_faster, triton, unlike
from flopbench.kernels.mirror_gelu import Activation, gelu, not_exact

CHANNELS = 16
"""Products in C++ compute multiples of it: the lanes of the widest vector."""

Weights = Sequence[Tensor]
Biases = Sequence[Tensor | None]


def linear_parts(
    parts: Sequence[Tensor], weights: Weights, biases: Biases, impl: Impl = "auto"
) -> list[Tensor]:
    """x_p W_pᵀ + b_p for every part of a feature.

    Args:
        parts: `[..., in]` each.
        weights: `[out, in]` each; one a part, or one for every so many parts in a row.
        biases: `[out]` or None for each part.
        impl: what it runs as, see `flopbench.kernels.dispatch`.

    Returns:
        `[..., out]` for each part.
    """
    which = choose(LINEAR, impl, parts, weights, biases).name
    if which == "cpp":
        return _in_cpp(parts, weights, biases, activate=False)
    if which == "triton":
        from flopbench.kernels.triton import linear as kernels

        return kernels.linear_halves(*autocast(*parts, *weights), biases[0])
    return by_part(parts, weights, biases)


def by_part(parts: Sequence[Tensor], weights: Weights, biases: Biases) -> list[Tensor]:
    """A product of the library for each part."""
    shared = len(parts) // len(weights)
    return [F.linear(x, weights[p // shared], b) for p, (x, b) in enumerate(zip(parts, biases, strict=True))]


def linear_gelu_parts(
    parts: Sequence[Tensor], weights: Weights, biases: Biases, kind: Activation, which: Name
) -> Sequence[Tensor]:
    """`gelu` of `linear_parts` in one kernel, "cpp" or "triton", as `choose(LINEAR_GELU, …)` says.

    Without gradients: these need what goes into the GELU, so it has to be written, by another kernel.
    """
    if which == "cpp":
        return _in_cpp(parts, weights, biases, activate=True)
    from flopbench.kernels.triton import linear as kernels

    parts, weights = autocast(*parts), autocast(*weights)
    last = biases[3] if len(parts) == 4 else None
    return kernels.linear_gelu(list(parts), list(weights), biases[0], last, kind)


def _in_cpp(parts: Sequence[Tensor], weights: Weights, biases: Biases, *, activate: bool) -> list[Tensor]:
    from flopbench.kernels.cpp import linear as kernels

    biased = [p for p, bias in enumerate(biases) if bias is not None]
    present = [bias for bias in biases if bias is not None]
    return kernels.linear_parts(list(parts), list(weights), present, biased, activate)


def _not_in_cpp(parts: Sequence[Tensor], weights: Weights, biases: Biases) -> Why:
    """With gradients C++ needs that all parts and weights have them."""
    if weights[0].shape[0] % CHANNELS or weights[0].shape[1] % CHANNELS:
        return f"channels that are no multiples of {CHANNELS}"
    if parts[0].dtype != weights[0].dtype:
        return "weights of another dtype"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    if _differentiated(*parts, *weights, *biases) and not all(x.requires_grad for x in (*parts, *weights)):
        return "some parts or weights take no gradient"
    return unlike(parts)


def _not_with_gelu(parts: Sequence[Tensor], weights: Weights, biases: Biases, kind: Activation) -> Why:
    return (
        _with_gradients(parts, weights, biases)
        or not_exact(parts, kind)
        or _not_in_cpp(parts, weights, biases)
    )


def _with_gradients(parts: Sequence[Tensor], weights: Weights, biases: Biases) -> Why:
    return "gradients need what goes into the GELU" if _differentiated(*parts, *weights, *biases) else ""


def _differentiated(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _not_halves(parts: Sequence[Tensor], weights: Weights, biases: Biases) -> Why:
    return "" if len(weights) == 2 and biases[1] is None else "not the weights of two halves"


def _not_in_epilogue(parts: Sequence[Tensor], weights: Weights, biases: Biases, kind: Activation) -> Why:
    """Parts of one shape, two for each weight where there are four, and biases on what is invariant."""
    if len(weights) != min(len(parts), 2) or any(biases[p] is not None for p in range(len(parts)) if p % 3):
        return "not the weights of a symmetry's irreps"
    return _with_gradients(parts, weights, biases) or unlike(parts)


LINEAR = Operation(
    "linear",
    by_part,
    (triton("2", cannot=_not_halves), cpp(cannot=_not_in_cpp, slower=library_is_faster)),
)
LINEAR_GELU = Operation(
    "linear_gelu",
    lambda parts, weights, biases, kind: gelu(by_part(parts, weights, biases), kind, "eager"),
    (
        triton("1", "2", "4", cannot=_not_in_epilogue),
        cpp("1", "2", "4", cannot=_not_with_gelu, slower=library_is_faster),
    ),
    composed=True,
)
