"""How a group acts on what networks take and give: a kind of value says it once for all generators.

An image's mirror image has the mirrored segmentation, boxes whose centres are at 1 − cx, surface normals with
the other sign of x, left wrists where the right ones were. Each is a `BySymmetry`, which checks turn into the
action of one generator after the other.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.models.tasks import Kind
from flopbench.structures import described
from flopbench.symmetries.generators import Generator


class BySymmetry:
    """A kind of value, by how each generator of a group acts on it.

    Attributes:
        name: what people read.
        act: from a generator and a value to the value that it makes of that.
    """

    __slots__ = ("act", "name")

    def __init__(self, name: str, act: Callable[[Generator, Any], Any]) -> None:
        self.name, self.act = name, act

    def __repr__(self) -> str:
        return f"<{self.name}>"


BY_SYMMETRY: Final = BySymmetry("whatever its shape says", Generator.__call__)
"""Images `[B, C, H, W]`, logits `[B, K]` and features, told from one another by their shapes."""

INVARIANT: Final = BySymmetry("invariant", lambda generator, x: x)
"""What stays as it is, whatever its shape."""

SCALARS: Final = BySymmetry("scalars", Generator.images)
"""Values per pixel `[..., H, W]` that move with it: images, segmentations, depths, heat maps."""

VECTORS: Final = BySymmetry("vectors", Generator.vectors)
"""Vectors per pixel `[B, 2 or 3, H, W]`, x to the right, y down: optical flow, surface normals."""

FEATURE: Final = BySymmetry("feature", Generator.features)
"""Features of the symmetry on the grid, `[B, H, W, C_p]` each part."""

BOXES: Final = BySymmetry("boxes", Generator.boxes)
"""Boxes `[..., 4]` of (cx, cy, w, h) as shares of the image's width and height."""


def keypoints(swapped: Mapping[str, Sequence[int]]) -> BySymmetry:
    """Points `[..., K, 2 or more]` of (x, y, ...) as shares of the image's width and height.

    Args:
        swapped: by the name of a generator, e.g. "flop", the permutation of the K points that it comes with:
            at place k stands which point of the other image is the k-th one. Left and right wrist change
            places.

    Raises:
        FlopbenchError: on the call, of a generator that has no permutation there, or one of other points.
    """
    return _swapping("keypoints", Generator.points, swapped, -2)


def heat_maps(swapped: Mapping[str, Sequence[int]]) -> BySymmetry:
    """A map per point `[..., K, H, W]`, which moves with the pixels; `swapped` and errors as of `keypoints`.

    So are segmentations whose classes tell left from right.
    """
    return _swapping("heat maps", Generator.images, swapped, -3)


def _swapping(
    name: str, act: Callable[[Generator, Any], Any], swapped: Mapping[str, Sequence[int]], axis: int
) -> BySymmetry:
    def swap(generator: Generator, x: Any) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim < -axis:
            raise FlopbenchError(f"{name} have {-axis} axes or more, got {described(x)}")
        order, count = list(swapped.get(generator.name, ())), x.shape[axis]
        if sorted(order) != list(range(count)):
            raise FlopbenchError(
                f"{name} under a {generator.name} need a permutation of 0 to {count - 1}, got {order}"
            )
        return act(generator, x).index_select(axis, torch.tensor(order, device=x.device))

    return BySymmetry(name, swap)


OF_KIND: dict[Kind, BySymmetry] = {
    "invariant": INVARIANT,
    "feature": FEATURE,
    "scalars": SCALARS,
    "vectors": VECTORS,
}
"""How a group acts on what a network of a task gives (`flopbench.models.tasks`)."""
