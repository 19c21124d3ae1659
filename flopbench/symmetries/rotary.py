"""Layers of rotary positions, once for every symmetry that says which channels turn together."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from flopbench.cost import Cost, Shapes, elements, free
from flopbench.kernels.rotation import Rotations
from flopbench.symmetries.base import Symmetry, parts_of, together


def _rotations(symmetry: Symmetry, channels: int) -> Rotations:
    """Those of heads of so many channels."""
    found = symmetry.rotations
    if found is None:
        raise ValueError(f"the symmetry {symmetry.name} has no rotary positions")
    if channels % found.count:
        raise ValueError(
            f"rotary positions of {symmetry.name} need a multiple of {found.count} channels per head, "
            f"got {channels}"
        )
    return found


class Rotary(nn.Module):
    """The cosines and sines by which queries and keys turn: of the grid that it is built for, kept.

    Those of another grid are computed in every call. A compiler sees constants or their computation.

    Args:
        symmetry: of the heads.
        channels: of a head.
        grid: (rows, columns) of tokens.
        others: tokens in front of them that do not turn.

    Raises:
        ValueError: the symmetry has no rotary positions, or none for so many channels.
    """

    def __init__(self, symmetry: Symmetry, channels: int, grid: tuple[int, int], others: int) -> None:
        super().__init__()
        self.rotations = _rotations(symmetry, channels)
        self.channels, self.grid, self.others = channels, grid, others
        self._keep(torch.empty(0))

    def forward(self, x: Any) -> tuple[Tensor, ...]:
        """The tables of `Rotations` for the tokens of a feature on the grid, `[B, H, W, C]`."""
        first, *_ = parts_of(x)
        _, rows, columns, _ = first.shape
        if (rows, columns) != self.grid:
            return tuple(self._tables((rows, columns), first))
        return tuple(table.to(first.dtype) for table in self.buffers())

    def _tables(self, grid: tuple[int, int], like: Tensor) -> list[Tensor]:
        return self.rotations.tables(self.channels, grid, self.others, like.dtype, like.device)

    def _keep(self, like: Tensor) -> None:
        for index, table in enumerate(self._tables(self.grid, like)):
            self.register_buffer(f"table_{index}", table, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Computed anew for another dtype or device: a cast rounds twice, and `to_empty` leaves no values.
        super()._apply(fn, recurse)
        self._keep(next(self.buffers()))
        return self

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return f"{self.channels}, grid={self.grid}"

    cost = free


class Rotate(nn.Module):
    """Turns queries and keys; values stay as they are.

    Args:
        symmetry: of the heads.
        channels: of a head.
        heads: how many.

    Raises:
        ValueError: the symmetry has no rotary positions, or none for so many channels.
    """

    def __init__(self, symmetry: Symmetry, channels: int, heads: int) -> None:
        super().__init__()
        self.rotations, self.heads = _rotations(symmetry, channels), heads

    def forward(self, qkv: Any, tables: tuple[Tensor, ...]) -> Any:
        """A feature `[B, N, 3·C]`, channels ordered (q, k, v) × head × C/heads, to the same shape."""

        def rotate(parts: list[Tensor]) -> list[Tensor]:
            split = [part.unflatten(-1, (3, self.heads, -1)) for part in parts]
            return [part.flatten(2) for part in self.rotations.rotate(split, tables)]

        return together(rotate, qkv)

    def cost(self, shapes: Shapes) -> Cost:
        """As many elements whatever the symmetry; values have an angle of zero, for the pass is one."""
        return Cost(elementwise=self.rotations.operations(elements(shapes.outputs)))
