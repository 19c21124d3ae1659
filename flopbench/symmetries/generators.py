"""Generators of a group: how each acts on images, on features, and on what a network's head gives.

What commutes with the generators commutes with the whole group, so checks loop over these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flopbench.errors import FlopbenchError

Moves = Callable[[Tensor, int, int], Tensor]
"""Moves the cells of a grid: takes a tensor and the axes of its rows and columns."""


@dataclass(frozen=True)
class Generator:
    """One element of a group, as it acts on all that it is asked to act on.

    Attributes:
        name: what people read.
        grid: how it moves pixels, and features on a grid.
        parts: of each part of the result, which part it is made of, and its sign.
        on_grid: whether parts lie on the grid; else what the grid does is in the parts already.
    """

    name: str
    grid: Moves
    parts: tuple[tuple[int, int], ...]
    on_grid: bool = True

    def images(self, x: Tensor) -> Tensor:
        """`[..., H, W]` to the same shape.

        Raises:
            FlopbenchError: rows and columns change places, and are not as many.
        """
        return self._moved(x, -2, -1)

    def channels(self, feature: Any) -> Any:
        """What it does to the parts of a feature wherever they lie: all that it does to a class token."""
        made = (feature[index] if sign > 0 else -feature[index] for index, sign in self.parts)
        return type(feature)(*made)

    def features(self, feature: Any) -> Any:
        """A feature whose parts are `[B, H, W, C_p]` each, or tokens that are transformed themselves."""
        if not self.on_grid:
            return self.channels(feature)
        return self.channels(type(feature)(*(self._moved(part, 1, 2) for part in feature)))

    def outputs(self, y: Tensor) -> Tensor:
        """What an invariant head gives, which stays as it is."""
        return y

    def __call__(self, x: Any) -> Any:
        """Whichever of these the shape says.

        Args:
            x: images `[B, C, H, W]`; logits `[B, K]`; or a feature of as many parts as it knows, on a grid
                if that is where it acts on features.

        Raises:
            TypeError: anything else, for there the action depends on what the axes mean.
            FlopbenchError: rows and columns change places, and are not as many.
        """
        if isinstance(x, Tensor) and x.ndim in (2, 4):
            return self.images(x) if x.ndim == 4 else self.outputs(x)
        if not isinstance(x, Tensor) and len(x) == len(self.parts) and (x[0].ndim == 4 or not self.on_grid):
            return self.features(x)
        shape = tuple(x.shape) if isinstance(x, Tensor) else [tuple(part.shape) for part in x]
        what = f"{type(x).__name__} {shape}"
        raise TypeError(f"how a {self.name} acts on {what} is not known: state the action")

    def _moved(self, x: Tensor, rows: int, columns: int) -> Tensor:
        moved = self.grid(x, rows, columns)
        if moved.shape != x.shape:
            sides = f"{x.shape[rows]}×{x.shape[columns]}"
            raise FlopbenchError(
                f"a {self.name} acts on squares, not on {sides}: give as many rows as columns"
            )
        return moved


def flop_columns(x: Tensor, rows: int, columns: int) -> Tensor:
    """Left and right change places."""
    return x.flip(columns)


def quarter_turn(x: Tensor, rows: int, columns: int) -> Tensor:
    """A turn by 90° counter-clockwise."""
    return torch.rot90(x, 1, (rows, columns))
