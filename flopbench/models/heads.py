"""Heads of dense tasks: from features on grids to values of pixels, each written once for every symmetry."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.cost import free
from flopbench.models.tasks import DecoderName, Task
from flopbench.symmetries import Head, Symmetry


class Features(nn.Module):
    """No head: the features of the last grid as they are."""

    def forward(self, pyramid: Sequence[Any], size: tuple[int, int]) -> Any:
        """Features of grids, the finest first, to those of the last."""
        return pyramid[-1]

    cost = free


class Readout(nn.Module):
    """A linear map of each cell's invariants."""

    def __init__(self, symmetry: Symmetry, width: int, channels: int, head: Head) -> None:
        super().__init__()
        self.symmetry, self.head = symmetry, head
        self.proj = nn.Linear(symmetry.invariant_width(width, head), channels)

    def forward(self, x: Any) -> Tensor:
        """`[B, h, w, width]` to `[B, channels, h, w]`."""
        return self.proj(self.symmetry.invariants(x, self.head)).permute(0, 3, 1, 2)

    cost = free


class LinearHead(nn.Module):
    """What each cell of the last grid says of its pixels, interpolated to these."""

    def __init__(self, readout: nn.Module) -> None:
        super().__init__()
        self.readout = readout

    def forward(self, pyramid: Sequence[Any], size: tuple[int, int]) -> Tensor:
        """Features of grids, the finest first, to `[B, channels, H, W]` of `size` (height, width)."""
        return to_pixels(self.readout(pyramid[-1]), size)

    cost = free


def to_pixels(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`[B, K, h, w]` to `[B, K, H, W]` by bilinear interpolation.

    To a size, about whose centre that is symmetric: by a factor with an offset it is not.
    """
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def make_head(
    task: Task,
    decoder: DecoderName,
    symmetry: Symmetry,
    widths: Sequence[int],
    num_classes: int,
    head: Head,
) -> nn.Module:
    """The head of a task that is not classification.

    Args:
        task: which.
        decoder: how it comes to pixels.
        symmetry: of the features.
        widths: their channels, of the finest grid first.
        num_classes: of a segmentation.
        head: which invariants it reads.

    Raises:
        ValueError: there is none for the symmetry.
    """
    if not task.decodes:
        return Features()
    if task.kind == "vectors" or decoder == "conv":
        raise ValueError(f"no {decoder} head for {task.name} yet")
    return LinearHead(Readout(symmetry, widths[-1], task.channels or num_classes, head))
