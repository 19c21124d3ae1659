"""The linear maps of a feature's parts, and the first half of an MLP (see `symmetries.irreps`).

In fp32, on a CPU where it was found faster, all parts are computed in one call in C++; without gradients the
GELU too, in the cache (`kernels.cpp.linear`). For the first product of the MLPs of ViT-S and B, 8 × 197
tokens, torch 2.13, two cores (tests/benchmarks/test_kernels.py), X and halves alike, it is 1.00 to 1.03 times
as fast as MKL's product on an Intel Xeon, with the GELU 1.12 to 1.27 times as fast as MKL's and inductor's
(one run). On an AMD EPYC it was 1.05 to 1.25 and 1.2 to 1.37 times (five runs), when threads packed all
weights together; it has not been measured there since.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.kernels import Impl, Name
from flopbench.kernels.autocast import autocast
from flopbench.kernels.dispatch import (
    Implementation,
    Operation,
    Why,
    choose,
    cpp,
    exported,
    library_is_faster,
    one_part,
    triton,
    unlike,
    unlike_rows,
)
from flopbench.kernels.gelu import ACTIVATIONS, Activation, cannot_transform, gelu, not_exact
from flopbench.kernels.transform import Transform

CHANNELS = 16
"""Products in C++ compute multiples of it: the lanes of the widest vector."""


class Maps(NamedTuple):
    """An affine map of each part of a feature.

    Attributes:
        weights: `[out, in]` each, of as many irreps as the feature has.
        of: the weight of each part. The parts that are rows of one irrep share theirs.
        biases: `[out]` or None for each part.
    """

    weights: Sequence[Tensor]
    of: tuple[int, ...]
    biases: Sequence[Tensor | None]


def linear_parts(parts: Sequence[Tensor], maps: Maps, impl: Impl = "auto") -> list[Tensor]:
    """x_p W_pᵀ + b_p for every part of a feature.

    Args:
        parts: `[..., in_p]` each.
        maps: W and b.
        impl: what it runs as, see `flopbench.kernels.dispatch`.

    Returns:
        `[..., out_p]` for each part.
    """
    which = choose(LINEAR, impl, parts, maps).name
    if which == "cpp":
        from flopbench.kernels.cpp.linear import linear_parts as in_cpp

        return in_cpp(*_as_operators_take(parts, maps), None)
    if which == "triton":
        from flopbench.kernels.triton import linear as kernels

        return kernels.tiled_linear_parts(*_as_operators_take(parts, maps))
    return batched(parts, maps) if which == "batched" else by_part(parts, maps)


def by_part(parts: Sequence[Tensor], maps: Maps) -> list[Tensor]:
    """A product of the library for each part."""
    return [
        F.linear(x, maps.weights[of], bias) for x, of, bias in zip(parts, maps.of, maps.biases, strict=True)
    ]


def batched(parts: Sequence[Tensor], maps: Maps) -> list[Tensor]:
    """One batched product of parts and weights of one shape.

    Two small products leave a GPU idle at the end of each, one batched product once. Where torch.compile
    traces, what writes the parts writes them side by side, and what reads the results adds the biases.
    """
    rows = parts[0].shape[:-1]
    # Along an axis that they have: a new one for each would be an operator more in what is exported.
    x = torch.cat(list(parts)).view(len(parts), -1, parts[0].shape[-1])
    weights = torch.stack([maps.weights[of] for of in maps.of])
    products = torch.bmm(x, weights.transpose(1, 2)).unflatten(1, rows)
    return [
        y if bias is None else y + bias.to(y.dtype)
        for y, bias in zip(products.unbind(), maps.biases, strict=True)
    ]


def linear_gelu_parts(
    parts: Sequence[Tensor], maps: Maps, transform: Transform, kind: Activation, which: Name
) -> list[Tensor]:
    """`gelu` of `linear_parts` as "cpp", "triton", "batched" or "folded", as `choose(LINEAR_GELU, …)` says.

    Those in one kernel are without gradients: these need what goes into the GELU, so it has to be written, by
    another kernel.
    """
    if which == "batched":
        return gelu(batched(parts, maps), transform, kind, "eager")
    if which == "folded":
        return folded(parts, maps, transform, kind)
    if which == "cpp":
        from flopbench.kernels.cpp.linear import linear_parts as in_cpp

        return in_cpp(*_as_operators_take(parts, maps), transform)
    from flopbench.kernels.triton import linear as kernels

    return kernels.linear_gelu(*_as_operators_take(parts, maps), *transform.lists, kind)


def folded(parts: Sequence[Tensor], maps: Maps, transform: Transform, kind: Activation) -> list[Tensor]:
    """`gelu` of `by_part`, with the transform's scale in weights and biases, which an engine scales once."""
    weights = [weight * transform.scale for weight in maps.weights]
    biases = [None if bias is None else bias * transform.scale for bias in maps.biases]
    points = transform.points(by_part(parts, Maps(weights, maps.of, biases)), scaled=False)
    return transform.parts([ACTIVATIONS[kind](point) for point in points])


def _not_folded(parts: Sequence[Tensor], maps: Maps, *_: object) -> Why:
    rounded = any(weight.dtype not in (torch.float32, torch.float64) for weight in maps.weights)
    return "it would round weights twice" if rounded else unlike_rows(parts)


def _as_operators_take(
    parts: Sequence[Tensor], maps: Maps
) -> tuple[list[Tensor], list[Tensor], list[int], list[Tensor], list[int]]:
    """Parts, weights and the weight of each part, biases and the part of each; in autocast's dtype."""
    biased = [p for p, bias in enumerate(maps.biases) if bias is not None]
    present = [bias for bias in maps.biases if bias is not None]
    return list(autocast(*parts)), list(autocast(*maps.weights)), list(maps.of), present, biased


def _not_batched(parts: Sequence[Tensor], maps: Maps, *_: object) -> Why:
    # Compared one by one: sizes that are free in what is exported have no hash.
    shapes = [(part.shape, maps.weights[of].shape) for part, of in zip(parts, maps.of, strict=True)]
    return "parts or weights of unlike shapes" if any(x != shapes[0] for x in shapes) else unlike(parts)


def _copies(parts: Sequence[Tensor], *_: object) -> Why:
    return "" if parts[0].is_cuda and torch.compiler.is_compiling() else "for compiled networks on a GPU"


_BATCHED = Implementation("batched", one_part, _not_batched, _copies, measured=True)


def _not_in_cpp(parts: Sequence[Tensor], maps: Maps) -> Why:
    """With gradients C++ needs that all parts and weights have them."""
    if any(weight.shape[0] % CHANNELS or weight.shape[1] % CHANNELS for weight in maps.weights):
        return f"channels that are no multiples of {CHANNELS}"
    if any(weight.dtype != parts[0].dtype for weight in maps.weights):
        return "weights of another dtype"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    if _differentiated(parts, maps) and not all(x.requires_grad for x in (*parts, *maps.weights)):
        return "some parts or weights take no gradient"
    return unlike_rows(parts)


def _not_with_gelu(parts: Sequence[Tensor], maps: Maps, transform: Transform, kind: Activation) -> Why:
    why = _with_gradients(parts, maps) or not_exact(parts, transform, kind) or _not_in_cpp(parts, maps)
    widths = (maps.weights[of].shape[0] // count for of, count in zip(maps.of, transform.slices, strict=True))
    if not why and any(width % CHANNELS for width in widths):
        return f"points that are no multiples of {CHANNELS} channels"
    return why


def _with_gradients(parts: Sequence[Tensor], maps: Maps) -> Why:
    return "gradients need what goes into the GELU" if _differentiated(parts, maps) else ""


def _differentiated(parts: Sequence[Tensor], maps: Maps) -> bool:
    tensors = (*parts, *maps.weights, *maps.biases)
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _unlike_rows(parts: Sequence[Tensor], maps: Maps) -> Why:
    return unlike_rows(parts)


def _not_in_epilogue(parts: Sequence[Tensor], maps: Maps, transform: Transform, kind: Activation) -> Why:
    """In Triton every slice of a part has as many channels in, and as many out."""
    slices = zip(maps.of, transform.slices, strict=True)
    if len({tuple(size / count for size in maps.weights[of].shape) for of, count in slices}) > 1:
        return "not the weights of a symmetry's irreps"
    return _with_gradients(parts, maps) or cannot_transform(parts, transform, kind)


LINEAR = Operation(
    "linear",
    by_part,
    (triton(one_part, _unlike_rows), _BATCHED, cpp(cannot=_not_in_cpp, slower=library_is_faster)),
)
LINEAR_GELU = Operation(
    "linear_gelu",
    lambda parts, maps, transform, kind: gelu(by_part(parts, maps), transform, kind, "eager"),
    (
        triton(cannot=_not_in_epilogue),
        _BATCHED,
        exported("folded", _not_folded),
        cpp(cannot=_not_with_gelu, slower=library_is_faster),
    ),
    composed=True,
)
