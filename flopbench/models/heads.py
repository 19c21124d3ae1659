"""Heads of dense tasks: from features on grids to values of pixels, each written once for every symmetry."""

from collections.abc import Sequence
from functools import partial, reduce
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.cost import DIVIDE, Cost, Shapes, free, per_element
from flopbench.models.tasks import DecoderName, Task
from flopbench.symmetries import Head, Symmetry, each, parts_of
from flopbench.symmetries.generators import vectors_of

EPS = 1e-6
# Of a decoder: its channels at most, and pixels per cell of its finest grid, at least.
WIDTH, STRIDE = 256, 4
# Bilinear interpolation is a factor for each of four neighbours, and their sum.
BILINEAR = 7


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
        self.symmetry = symmetry
        self.head: Head = head
        self.proj = nn.Linear(symmetry.invariant_width(width, head), channels)

    def forward(self, x: Any) -> Tensor:
        """`[B, h, w, width]` to `[B, channels, h, w]`."""
        return self.proj(self.symmetry.invariants(x, self.head)).permute(0, 3, 1, 2)

    cost = free


class VectorReadout(nn.Module):
    """A linear map of each cell's feature to vectors (x, y, z): x and y of what moves as these do.

    z is a linear map of the cell's invariants. Which parts of the feature x and y come of, and which have the
    same weights, follows from the generators.
    """

    bias: Any

    def __init__(self, symmetry: Symmetry, width: int, head: Head) -> None:
        super().__init__()
        widths = [shape[-1] for shape in symmetry.shapes((1, 1), width)]
        found = vectors_of(symmetry.generators, len(widths))
        self.terms = [terms for terms in found if terms[0].part is not None]
        self.constants = [terms for terms in found if terms[0].part is None]
        self.maps = nn.ModuleList(
            nn.Linear(widths[terms[0].part or 0], 1, bias=False) for terms in self.terms
        )
        bias = nn.Parameter(torch.zeros(len(self.constants))) if self.constants else None
        self.register_parameter("bias", bias)
        self.z = Readout(symmetry, width, 1, head)

    def forward(self, x: Any) -> Tensor:
        """`[B, h, w, width]` to `[B, 3, h, w]`, of any length."""
        parts = parts_of(x)
        plane: tuple[list[Tensor], list[Tensor]] = [], []
        for terms, weigh in zip(self.terms, self.maps, strict=True):
            # All that have the same weights at once.
            made = weigh(torch.stack([parts[term.part or 0] for term in terms])).squeeze(-1)
            for term, value in zip(terms, made, strict=True):
                plane[term.axis].append(value if term.sign > 0 else -value)
        for index, terms in enumerate(self.constants):
            for term in terms:
                plane[term.axis].append(term.sign * self.bias[index])
        components = torch.stack([reduce(torch.add, own) for own in plane], dim=1)
        return torch.cat([components, self.z(x)], dim=1)

    cost = free


class Unit(nn.Module):
    """Vectors per pixel made as long as one."""

    def forward(self, v: Tensor) -> Tensor:
        """`[B, 3, H, W]` to the same shape."""
        return F.normalize(v, dim=1, eps=EPS)

    # A square and a quotient each, and a length for three of them.
    cost = per_element(1 + 1 / 3 + DIVIDE)


class LinearHead(nn.Module):
    """What each cell of the last grid says of its pixels, interpolated to these."""

    def __init__(self, readout: nn.Module, finish: nn.Module) -> None:
        super().__init__()
        self.readout, self.finish = readout, finish

    def forward(self, pyramid: Sequence[Any], size: tuple[int, int]) -> Tensor:
        """Features of grids, the finest first, to `[B, channels, H, W]` of `size` (height, width)."""
        return self.finish(to_pixels(self.readout(pyramid[-1]), size))

    def cost(self, shapes: Shapes) -> Cost:
        """The interpolation."""
        return Cost(elementwise=BILINEAR * shapes.written)


class Level(nn.Module):
    """One grid of a decoder: what comes from the coarser one, the feature of this one, and a separable block.

    Args:
        symmetry: of the features.
        width: channels of the decoder.
        channels: of the feature of this grid; None where there is none.
        coarser: whether there is a coarser grid.
    """

    def __init__(self, symmetry: Symmetry, width: int, channels: int | None, *, coarser: bool) -> None:
        super().__init__()
        self.symmetry, self.coarser = symmetry, coarser
        self.lateral = None if channels is None else symmetry.linear(channels, width)
        self.dwconv = symmetry.depthwise(width, 3, "channels_last")
        self.norm = symmetry.layer_norm(width, EPS)
        self.linear = symmetry.linear(width, width)
        self.act = symmetry.activation()
        self.residual = symmetry.residual(width, layer_scale=None, drop_path=0.0)

    def forward(self, x: Any, feature: Any, size: tuple[int, int]) -> Any:
        """A coarser grid `[B, h', w', width]` and a feature `[B, h, w, channels]`, either may be None, to
        `[B, h, w, width]` of `size` (h, w)."""
        if self.coarser:
            x = each(partial(_resized, size=size), x)
        if self.lateral is not None:
            lateral = self.lateral(feature)
            x = each(torch.add, x, lateral) if self.coarser else lateral
        branch = self.symmetry.activated(self.linear, self.act, self.norm(self.dwconv(x)))
        return self.residual(x, branch)

    def cost(self, shapes: Shapes) -> Cost:
        """The interpolation and the sum."""
        both = self.coarser and self.lateral is not None
        return Cost(elementwise=(BILINEAR * self.coarser + both) * shapes.written)


def _resized(part: Tensor, size: tuple[int, int]) -> Tensor:
    """`[B, h, w, C]` to another grid."""
    return to_pixels(part.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)


class ConvDecoder(nn.Module):
    """From the coarsest grid to one of cells of four pixels, where pixels are read; then as the linear head.

    It takes in the feature of every grid of the pyramid and goes on by doubling the finest. What it mixes
    neighbours by are depthwise 3×3 convolutions of the symmetry.

    Args:
        symmetry: of the features.
        widths: their channels, of the finest grid first.
        stride: pixels per cell of that grid.
        width: channels within.
        readout: of features of this width.
        finish: of pixels.
    """

    def __init__(
        self,
        symmetry: Symmetry,
        widths: Sequence[int],
        stride: int,
        width: int,
        readout: nn.Module,
        finish: nn.Module,
    ) -> None:
        super().__init__()
        channels: list[int | None] = [*reversed(widths)]
        while stride >= 2 * STRIDE:
            channels.append(None)
            stride //= 2
        self.levels = nn.ModuleList(
            Level(symmetry, width, given, coarser=index > 0) for index, given in enumerate(channels)
        )
        self.readout, self.finish = readout, finish

    def forward(self, pyramid: Sequence[Any], size: tuple[int, int]) -> Tensor:
        """Features of grids, the finest first, to `[B, channels, H, W]` of `size` (height, width)."""
        x, grid = None, (0, 0)
        for level, feature in zip_longest(self.levels, reversed(pyramid)):
            grid = (2 * grid[0], 2 * grid[1]) if feature is None else _grid(feature)
            x = level(x, feature, grid)
        return self.finish(to_pixels(self.readout(x), size))

    def cost(self, shapes: Shapes) -> Cost:
        """The interpolation to pixels."""
        return Cost(elementwise=BILINEAR * shapes.written)


def _grid(feature: Any) -> tuple[int, int]:
    """Rows and columns of a feature `[B, h, w, C]`."""
    rows, columns = parts_of(feature)[0].shape[1:3]
    return rows, columns


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
    *,
    stride: int,
    invariant: bool = False,
) -> nn.Module:
    """The head of a task that is not classification.

    Args:
        task: which.
        decoder: how it comes to pixels.
        symmetry: of the features.
        widths: their channels, of the finest grid first.
        num_classes: of a segmentation.
        head: which invariants it reads.
        stride: pixels per cell of the finest grid.
        invariant: whether the features are ordinary ones that hold invariants: these move with the image and
            are otherwise left as they are, which a kernel's neighbours and a vector's components are not.

    Raises:
        ValueError: there is none for such features.
        NotImplementedError: the symmetry lacks a layer of it.
    """
    if not task.decodes:
        return Features()
    if invariant and (decoder == "conv" or task.kind == "vectors"):
        raise ValueError(
            f"after an invariantisation there is no {task.name} by a {decoder} decoder that keeps the "
            f"symmetry: take segmentation or depth with decoder='linear', or an equivariant version"
        )
    width = min(WIDTH, widths[-1]) if decoder == "conv" else widths[-1]
    if task.kind == "vectors":
        readout, finish = VectorReadout(symmetry, width, head), Unit()
    else:
        readout, finish = Readout(symmetry, width, task.channels or num_classes, head), nn.Identity()
    if decoder == "conv":
        return ConvDecoder(symmetry, widths, stride, width, readout, finish)
    return LinearHead(readout, finish)
