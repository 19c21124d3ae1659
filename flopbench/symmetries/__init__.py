"""What a symmetry does to each layer, and which symmetry each block of a network has."""

from dataclasses import dataclass, replace

from torch import nn

from flopbench.errors import unknown
from flopbench.models.catalog import VERSIONS, Version
from flopbench.symmetries.base import (
    Activation,
    Dropout,
    DropPath,
    Feature,
    Halves,
    Head,
    MemoryFormat,
    Quarters,
    Symmetry,
    apart,
    each,
    mirror,
    parts_of,
    together,
)
from flopbench.symmetries.flop import Flop
from flopbench.symmetries.folding import fold
from flopbench.symmetries.plain import Plain

__all__ = [
    "FLOP",
    "PLAIN",
    "Activation",
    "DropPath",
    "Dropout",
    "Feature",
    "Halves",
    "Head",
    "MemoryFormat",
    "Quarters",
    "Schedule",
    "Symmetry",
    "apart",
    "each",
    "fold",
    "mirror",
    "parts_of",
    "schedule",
    "together",
]

PLAIN = Plain()
FLOP = Flop()


@dataclass(frozen=True)
class Schedule:
    """One symmetry a block, with at most one change: `first` up to `switch` blocks, then `last`.

    `join` maps the feature of `first` to that of `last` before block `switch`.
    """

    first: Symmetry
    last: Symmetry
    switch: int
    invariant: bool = False

    def __getitem__(self, block: int) -> Symmetry:
        """The symmetry of block `block`."""
        return self.first if block < self.switch else self.last

    def with_tokens(self, grid: tuple[int, int]) -> "Schedule":
        """The same for a network that mixes the tokens of a grid (rows, columns) by linear maps."""
        first = self.first.with_tokens(grid)
        last = first if self.last is self.first else self.last.with_tokens(grid)
        return replace(self, first=first, last=last)

    def join(self) -> nn.Module:
        """The module between block `switch` − 1 and block `switch`; an identity without a switch."""
        if self.first is self.last:
            return nn.Identity()
        return self.first.invariantise() if self.invariant else self.first.change_of_basis()


def schedule(version: Version | str, depth: int) -> Schedule:
    """The symmetries of a network of `depth` blocks in one of the paper's versions.

    `plain` X; `flop` E(X); `hybrid` H(X) and `early_invariant` I(X): the first ⌊depth/2⌋ blocks
    equivariant, the others plain.

    Raises:
        FlopbenchError: no such version.
    """
    if version not in VERSIONS:
        raise unknown("symmetry", str(version), VERSIONS)
    if version == "plain":
        return Schedule(PLAIN, PLAIN, depth)
    if version == "flop":
        return Schedule(FLOP, FLOP, depth)
    return Schedule(FLOP, PLAIN, depth // 2, invariant=version == "early_invariant")
