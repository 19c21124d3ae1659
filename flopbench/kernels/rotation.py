"""Rotary positions: queries and keys turn with the place of their token, so that scores go by distances.

Source: Su et al., *RoFormer*, 2021 (arXiv:2104.09864). In images half of the rotations go by x and half by y
(Heo et al., *Rotary Position Embedding for Vision Transformer*, 2024, arXiv:2403.13298), which are normalised
to [−1, 1] about the image's centre (*DINOv3*, 2025, arXiv:2508.10104).

A group leaves all scores as they are where it takes the rotation T at a place p to that at the place it moves
it to: T(g p) = ρ(g) T(p) ρ(g)⁻¹. So which channels turn together, and along which axis, follows from how it
acts on them, and is data. Any group of mirror images and quarter turns leaves the axes to each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import pi
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, cat

TEMPERATURE = 100.0
"""The longest period over the shortest, that of the first frequency: twice the side of an image."""


class Plane(NamedTuple):
    """Two slices of a head's channels that turn together.

    Attributes:
        axis: along which: x to the right, y down.
        first: the slice that is as cosines are.
        second: the other, as sines are.
        sign: 1 or −1, the sense in which they turn.
    """

    axis: Literal["x", "y"]
    first: int
    second: int
    sign: int = 1


@dataclass(frozen=True)
class Rotations:
    """Which slices of a head's channels turn together; all slices have as many channels.

    Attributes:
        slices: into how many slices each part of a feature falls. They are numbered part after part.
        planes: each slice is in one. The frequencies are shared out among those along an axis, in turn.
        mixed: pairs of slices whose normalised sum and difference turn in their stead.
    """

    slices: tuple[int, ...]
    planes: tuple[Plane, ...]
    mixed: tuple[tuple[int, int], ...] = ()
    # Of each slice the one that turns with it, and of each part its slices: what every call looks up.
    _partners: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _by_part: tuple[range, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pairs = {plane.first: plane.second for plane in self.planes}
        pairs |= {two: one for one, two in pairs.items()}
        ends = tuple(accumulate(self.slices))
        by_part = tuple(range(end - count, end) for end, count in zip(ends, self.slices, strict=True))
        object.__setattr__(self, "_partners", tuple(pairs[index] for index in range(self.count)))
        object.__setattr__(self, "_by_part", by_part)

    @property
    def count(self) -> int:
        """How many slices there are: channels per head are a multiple of it."""
        return sum(self.slices)

    def tables(
        self, channels: int, grid: tuple[int, int], others: int, dtype: torch.dtype, device: torch.device
    ) -> list[Tensor]:
        """Cosines and sines, signed and scaled, of each part.

        Args:
            channels: of a head.
            grid: (rows, columns) of tokens.
            others: tokens in front of them that do not turn.
            dtype: of the tables.
            device: of the tables.

        Returns:
            `[others + rows·columns, 3, 1, c_p]` twice for each part: of queries, keys and values.
        """
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        frequencies = channels // 4
        # As single precision has them: so do the networks that were trained with them.
        exponents = torch.arange(frequencies, dtype=torch.float32, device=device) / frequencies
        periods = (TEMPERATURE**exponents).to(exact)
        y, x = (2 * pi * _centred(side, exact, device)[:, None] / periods for side in grid)
        angles = {"y": y[:, None].expand(*grid, -1), "x": x.expand(*grid, -1)}
        cosines, sines = {}, {}
        for axis, angle in angles.items():
            planes = [plane for plane in self.planes if plane.axis == axis]
            # A token that does not turn has an angle of zero, and so have values.
            angle = F.pad(angle.flatten(0, 1), (0, 0, others, 0))
            angle = torch.stack([angle, angle, torch.zeros_like(angle)], dim=1)
            for index, (_, one, two, sign) in enumerate(planes):
                own = angle[..., index :: len(planes)]
                cosine, sine = own.cos(), sign * self._scale(one, two) * own.sin()
                cosines |= {one: cosine * self._scale(one, one), two: cosine * self._scale(two, two)}
                sines |= {one: -sine, two: sine}
        both = ([table[i] for i in numbers] for numbers in self._by_part for table in (cosines, sines))
        return [cat(slices, dim=-1)[:, :, None].to(dtype) for slices in both]

    def rotate(self, parts: Sequence[Tensor], tables: Sequence[Tensor]) -> list[Tensor]:
        """Parts of queries, keys and values `[B, N, 3, heads, c_p]`, turned by `tables` of N tokens.

        Slice by slice, each part written once at the end: of that a compiler makes one kernel per part.
        """
        pieces = self._pieces(parts)
        self._mix(pieces)
        factors = zip(self._pieces(tables[::2]), self._pieces(tables[1::2]), strict=True)
        turned = [
            torch.addcmul(pieces[index] * cosine, pieces[self._partners[index]], sine)
            for index, (cosine, sine) in enumerate(factors)
        ]
        self._mix(turned)
        return [cat(turned[own.start : own.stop], dim=-1) for own in self._by_part]

    def operations(self, elements: int) -> int:
        """Elementwise operations of turning so many: two factors and a sum, and what mixes and unmixes."""
        return 3 * elements + 2 * elements * 2 * len(self.mixed) // self.count

    def _scale(self, one: int, two: int) -> float:
        """What makes sums of mixed slices, which are not normalised, there and back normalised ones."""
        mixed = [index for pair in self.mixed for index in pair]
        return 0.5 ** (0.5 * ((one in mixed) + (two in mixed)))

    def _mix(self, pieces: list[Tensor]) -> None:
        for one, two in self.mixed:
            pieces[one], pieces[two] = pieces[one] + pieces[two], pieces[one] - pieces[two]

    def _pieces(self, parts: Sequence[Tensor]) -> list[Tensor]:
        pieces: list[Tensor] = []
        for part, count in zip(parts, self.slices, strict=True):
            pieces += [part] if count == 1 else part.chunk(count, dim=-1)
        return pieces


def _centred(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Centres of so many cells between −1 and 1; mirror images have the same but for the sign, to the bit."""
    return torch.arange(1 - side, side, 2, dtype=dtype, device=device) / side
