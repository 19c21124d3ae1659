"""A pointwise non-linearity of a feature, in the transform of its group (`flopbench.kernels.transform`)."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import (
    Operation,
    Why,
    choose,
    cpp,
    inductor,
    library_is_faster,
    one_part,
    triton,
    unlike_rows,
)
from flopbench.kernels.inductor import compiled
from flopbench.kernels.transform import Transform

Pointwise = Callable[[Tensor], Tensor]
Activation = Literal["gelu", "quick_gelu"]

MOST_POINTS = 8
"""Of a transform in C++ and in Triton."""


def quick_gelu(x: Tensor) -> Tensor:
    """x · σ(1.702 x), the sigmoid approximation of GELU. `[...]` to the same shape."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, Pointwise] = {"gelu": F.gelu, "quick_gelu": quick_gelu}


def pointwise_parts(parts: Sequence[Tensor], transform: Transform, kind: Activation) -> list[Tensor]:
    """What `gelu` computes, in torch's operators."""
    fn = ACTIVATIONS[kind]
    return transform.parts([fn(point) for point in transform.points(parts)])


def gelu(
    parts: Sequence[Tensor], transform: Transform, kind: Activation = "gelu", impl: Impl = "auto"
) -> list[Tensor]:
    """A GELU of a feature's parts: "gelu" is the exact one.

    Args:
        parts: `[..., slices·c]` each, with as many slices as the transform has of them.
        transform: to the points that the group permutes.
        kind: which.
        impl: what it runs as, see `flopbench.kernels.dispatch`.

    Returns:
        As many, of the same shapes.
    """
    which = choose(GELU, impl, parts, transform, kind).name
    if which == "triton":
        from flopbench.kernels.triton import gelu as kernels

        return kernels.gelu(list(parts), *transform.lists, kind)
    if which == "cpp":
        from flopbench.kernels.cpp.gelu import gelu_parts

        return gelu_parts(list(parts), transform)
    run = compiled(pointwise_parts, *parts) if which == "inductor" else pointwise_parts
    return run(parts, transform, kind)


def cannot_transform(parts: Sequence[Tensor], transform: Transform, kind: Activation) -> Why:
    """A reason against what transforms a few points of parts that have the same tokens."""
    return f"more than {MOST_POINTS} points" if len(transform.order) > MOST_POINTS else unlike_rows(parts)


def not_exact(parts: Sequence[Tensor], transform: Transform, kind: Activation) -> Why:
    """A reason against what of these has the exact GELU alone."""
    return cannot_transform(parts, transform, kind) if kind == "gelu" else f"{kind} is not the exact GELU"


GELU = Operation(
    "gelu",
    pointwise_parts,
    (
        triton(one_part, cannot_transform),
        cpp(cannot=not_exact, slower=library_is_faster),
        inductor(one_part),
    ),
)
