"""Generators of a group: how each acts on images, on features, and on what a network's head gives.

What commutes with the generators commutes with the whole group, so checks loop over these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.structures import described

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
        """A feature whose parts are `[B, H, W, C_p]` each, or tokens that are transformed themselves.

        A tensor `[B, H, W, C]` is of ordinary features, each of which is invariant.
        """
        if isinstance(feature, Tensor):
            return self._moved(feature, 1, 2)
        if not self.on_grid:
            return self.channels(feature)
        return self.channels(type(feature)(*(self._moved(part, 1, 2) for part in feature)))

    @cached_property
    def plane(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The matrix M by which it takes a direction (x, y), x to the right and y down, to another."""
        steps = torch.arange(-1, 2, device="cpu")
        x, y = steps.expand(3, 3), steps[:, None].expand(3, 3)
        # What a cell now shows lay where the inverse takes it: the transpose of what the element does.
        moved = [self.grid(axis, 0, 1) for axis in (x, y)]
        (to_x, to_y) = ([int(axis[cell]) for axis in moved] for cell in ((1, 2), (2, 1)))
        return (to_x[0], to_x[1]), (to_y[0], to_y[1])

    def source(self, axis: int) -> tuple[int, int]:
        """Which component of a direction becomes the one of this axis, 0 for x and 1 for y, by which sign."""
        row = self.plane[axis]
        of = 0 if row[0] else 1
        return of, row[of]

    def directions(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Components of vectors in the plane, wherever these lie."""
        chosen = (((x, y)[of], sign) for of, sign in map(self.source, (0, 1)))
        made = [component if sign > 0 else -component for component, sign in chosen]
        return made[0], made[1]

    def vectors(self, v: Tensor) -> Tensor:
        """Vectors per pixel `[..., 2 or more, H, W]`; components after x and y stay as they are.

        Raises:
            FlopbenchError: another shape.
        """
        _require(_size(v, -3) > 1, "vectors are [..., 2 or more, H, W]", v)
        x, y, *others = self.images(v).unbind(-3)
        return torch.stack([*self.directions(x, y), *others], dim=-3)

    def points(self, p: Tensor) -> Tensor:
        """Points `[..., 2 or more]`, (x, y, ...) as shares of the image's width and height.

        Raises:
            FlopbenchError: another shape.
        """
        _require(_size(p, -1) > 1, "points are [..., 2 or more], of x, y, ...", p)
        x, y = self.directions(p[..., 0] - 0.5, p[..., 1] - 0.5)
        return torch.cat([torch.stack([x, y], dim=-1) + 0.5, p[..., 2:]], dim=-1)

    def boxes(self, b: Tensor) -> Tensor:
        """Boxes `[..., 4]`, (cx, cy, w, h) as shares of the image's width and height.

        Raises:
            FlopbenchError: another shape.
        """
        _require(_size(b, -1) == 4, "boxes are [..., 4], of cx, cy, w, h", b)
        width, height = (side.abs() for side in self.directions(b[..., 2], b[..., 3]))
        return torch.cat([self.points(b[..., :2]), torch.stack([width, height], dim=-1)], dim=-1)

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
            return self.images(x) if x.ndim == 4 else x
        if not isinstance(x, Tensor) and len(x) == len(self.parts) and (x[0].ndim == 4 or not self.on_grid):
            return self.features(x)
        shape = tuple(x.shape) if isinstance(x, Tensor) else [tuple(part.shape) for part in x]
        what = f"{type(x).__name__} {shape}"
        raise TypeError(f"how a {self.name} acts on {what} is not known: state the action")

    def _moved(self, x: Tensor, rows: int, columns: int) -> Tensor:
        there = _size(x, rows) and _size(x, columns)
        _require(bool(there), f"a {self.name} acts on a grid of rows and columns", x)
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


def _size(x: Any, axis: int) -> int:
    """Along an axis of a tensor; 0 without it."""
    return x.shape[axis] if isinstance(x, Tensor) and -x.ndim <= axis < x.ndim else 0


def _require(right: bool, what: str, x: Any) -> None:
    if not right:
        raise FlopbenchError(f"{what}, got {described(x)}")


Element = tuple[Generator, ...]
"""An element of a group, as generators that act one after another."""


def elements(generators: Sequence[Generator]) -> list[tuple[Element, Element]]:
    """Every element of the group that the generators make, the identity first, with its inverse."""
    cells = torch.arange(9, device="cpu").view(3, 3)
    found: dict[tuple[int, ...], Element] = {}
    waiting: list[Element] = [()]
    for element in waiting:
        shown = tuple(_moved(element, cells).flatten().tolist())
        if shown not in found:
            found[shown] = element
            waiting += [(*element, generator) for generator in generators]
    group = list(found.values())
    return [
        (element, next(other for other in group if torch.equal(_moved((*element, *other), cells), cells)))
        for element in group
    ]


def orbits(generators: Sequence[Generator], size: int) -> list[list[int]]:
    """The orbit of each cell of a square of `size` cells each way, numbered as they are met row by row."""
    group = [element for element, _ in elements(generators)]
    cells = torch.arange(size * size, device="cpu").view(size, size)
    moved = torch.stack([_moved(element, cells) for element in group]).amin(0).flatten().tolist()
    number = {cell: index for index, cell in enumerate(sorted(set(moved)))}
    return [[number[cell] for cell in moved[row : row + size]] for row in range(0, size * size, size)]


class Component(NamedTuple):
    """A term of a vector: to `axis`, 0 for x and 1 for y, goes `sign` times a weighted sum of a part.

    Attributes:
        axis: which component of the vector.
        part: which part of the feature; None for a constant.
        sign: 1 or −1.
    """

    axis: int
    part: int | None
    sign: int


def vectors_of(generators: Sequence[Generator], parts: int) -> list[list[Component]]:
    """Every linear map that makes vectors in the plane, M v, of a feature's parts, P f, and of constants.

    M T = T P says of T's entries that T[i, p] is, by a sign, T[j, q]: i comes of j and p of q, wherever the
    generator is. So entries are free orbit by orbit, and zero where an orbit comes back with the other sign.

    Returns:
        The terms of each orbit: these have the same weights.
    """
    found: list[list[Component]] = []
    seen: set[tuple[int, int | None]] = set()
    for start in ((axis, part) for axis in (0, 1) for part in (*range(parts), None)):
        if start in seen:
            continue
        signs, waiting, consistent = {start: 1}, [start], True
        for axis, part in waiting:
            for generator in generators:
                of, along = generator.source(axis)
                whence, sign = (None, 1) if part is None else generator.parts[part]
                other, total = (of, whence), along * sign * signs[axis, part]
                if other not in signs:
                    waiting.append(other)
                consistent &= signs.setdefault(other, total) == total
        seen |= signs.keys()
        if consistent:
            found.append([Component(axis, part, sign) for (axis, part), sign in signs.items()])
    return found


def _moved(element: Element, cells: Tensor) -> Tensor:
    for generator in element:
        cells = generator.grid(cells, 0, 1)
    return cells
