"""Embeddings of positions, for any symmetry: what is learnt, unfolded to the grid, and how it is resized."""

from collections.abc import Iterable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.symmetries.base import each, parts_of, together
from flopbench.symmetries.folding import Foldable, Folded


class Positions(nn.Module, Foldable):
    """Adds an embedding of the position, of which a symmetry leaves a part of the grid to be learnt.

    A subclass takes the width and the grid (rows, columns), and raises ValueError for a grid it cannot have.
    """

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.width, self.grid = width, grid

    def forward(self, x: Any) -> Any:
        """`[B, H, W, C]` to the same shape."""
        return _add(x, *parts_of(self.unfolded()))

    def folded(self) -> Folded:
        """The same for inference alone, with what it unfolds to for weights."""
        return Folded(_add, *parts_of(self.unfolded()))

    def unfolded(self) -> Any:
        """What it adds: a feature on the whole grid, `[1, H, W, C]` or `[H, W, C]`."""
        raise NotImplementedError

    def learnt(self, whole: Any) -> Iterable[Tensor]:
        """What would have to be learnt, in the parameters' order, for `unfolded` to be `whole`."""
        raise NotImplementedError

    @torch.no_grad()
    def resized(self, grid: tuple[int, int]) -> Self:
        """The same embedding, interpolated bicubically, for a grid of other (rows, columns).

        Interpolated is what it unfolds to, whose symmetry that keeps; on the same grid it is this one.

        Raises:
            ValueError: a grid that the symmetry cannot have.
        """
        if grid == self.grid:
            return self
        layer = type(self)(self.width, grid).to(next(self.parameters()))
        values = layer.learnt(each(lambda part: _interpolated(part, grid), self.unfolded()))
        for parameter, value in zip(layer.parameters(), values, strict=True):
            parameter.copy_(value.reshape(parameter.shape))
        return layer


def _add(x: Any, *positions: Tensor) -> Any:
    return together(lambda parts: [torch.add(*pair) for pair in zip(parts, positions, strict=True)], x)


def _interpolated(part: Tensor, grid: tuple[int, int]) -> Tensor:
    """`[1, H, W, C]` or `[H, W, C]` to `[1, rows, columns, C]`.

    To a size and not by a factor: one that is not the ratio of the sizes samples off the grid's centre, about
    which the embedding is symmetric.
    """
    planes = part.reshape(1, *part.shape[-3:]).permute(0, 3, 1, 2)
    return F.interpolate(planes, size=grid, mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
