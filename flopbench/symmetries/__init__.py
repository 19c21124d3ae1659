"""What a symmetry does to each layer, and which symmetry each block of a network has."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from flopbench.errors import unknown
from flopbench.models.catalog import VERSIONS, Version
from flopbench.symmetries.base import Dropout, DropPath, Feature, Halves, Head, Symmetry, each
from flopbench.symmetries.flop import Flop
from flopbench.symmetries.plain import Plain

__all__ = [
    "FLOP",
    "PLAIN",
    "DropPath",
    "Dropout",
    "Feature",
    "Halves",
    "Head",
    "Schedule",
    "Symmetry",
    "each",
    "schedule",
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

    def join(self, symmetry: Any = None) -> nn.Module:
        """The module between block `switch` − 1 and block `switch`; an identity without a switch."""
        if self.first is self.last:
            return nn.Identity()
        source: Symmetry = symmetry or self.first
        return source.invariantise() if self.invariant else source.change_of_basis()


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
