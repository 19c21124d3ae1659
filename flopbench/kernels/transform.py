"""The orthogonal transform in which a pointwise non-linearity commutes with a group.

Slices of the channels of a feature's parts, one of each row of each irrep, make a vector in the regular
representation: the group permutes its points, and any function of each point alone commutes with that. For
groups of commuting mirrors the transform is that of Walsh and Hadamard; for mirroring and quarter turns, too,
but for the order and the signs of the slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, cat

SQRT_HALF = 0.5**0.5


@dataclass(frozen=True)
class Transform:
    """A signed Walsh–Hadamard transform of n = 2ᵏ points: orthogonal, and but for signs its own inverse.

    Attributes:
        slices: into how many slices of channels each part falls. They are numbered part after part.
        order: the slice that stands at each point.
        signs: the sign that it stands there with, 1 or −1.
    """

    slices: tuple[int, ...]
    order: tuple[int, ...]
    signs: tuple[int, ...]

    @property
    def scale(self) -> float:
        """1/√n: what makes sums and differences orthogonal."""
        return float(len(self.order) ** -0.5)

    @property
    def lists(self) -> tuple[list[int], list[int], list[int]]:
        """The attributes as operators of torch's take them."""
        return list(self.slices), list(self.order), list(self.signs)

    def points(self, parts: Sequence[Tensor], *, scaled: bool = True) -> list[Tensor]:
        """Parts `[..., slices·c]` to n points `[..., c]`; not `scaled`, of parts that are already."""
        pieces: list[Tensor] = []
        for part, count in zip(parts, self.slices, strict=True):
            pieces += [part] if count == 1 else part.chunk(count, dim=-1)
        signed = (
            pieces[index] if sign > 0 else -pieces[index]
            for index, sign in zip(self.order, self.signs, strict=True)
        )
        return _walsh_hadamard(list(signed), scaled=scaled)

    def parts(self, points: Sequence[Tensor]) -> list[Tensor]:
        """The inverse of `points`."""
        pieces = list(points)
        for point, index, sign in zip(_walsh_hadamard(list(points)), self.order, self.signs, strict=True):
            pieces[index] = point if sign > 0 else -point
        parts, first = [], 0
        for count in self.slices:
            parts.append(pieces[first] if count == 1 else cat(pieces[first : first + count], dim=-1))
            first += count
        return parts


POINT = Transform((1,), (0,), (1,))
"""Of an ordinary tensor, which has nothing to transform."""

HALVES = Transform((1, 1), (0, 1), (1, 1))
"""Mirror pairs of a symmetric and an antisymmetric half."""

QUARTERS = Transform((1, 1, 1, 1), (0, 1, 2, 3), (1, 1, 1, 1))
"""Mirror pairs of channels of mirror pairs of tokens."""


def _walsh_hadamard(x: list[Tensor], *, scaled: bool = True) -> list[Tensor]:
    span = 1
    while span < len(x):
        for i in range(len(x)):
            if not i & span:
                x[i], x[i + span] = x[i] + x[i + span], x[i] - x[i + span]
        span *= 2
    # Scaled in place: fresh results that nobody else has seen.
    return x if len(x) == 1 or not scaled else [point.mul_(len(x) ** -0.5) for point in x]


def to_mirror_pairs(s: Tensor, a: Tensor) -> list[Tensor]:
    """(s, a) ↦ ((s + a)/√2, (s − a)/√2): what a mirroring swaps. Its own inverse; shapes `[...]` each."""
    return _walsh_hadamard([s, a])
