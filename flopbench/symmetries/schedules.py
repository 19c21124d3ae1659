"""Which symmetry each block of a network has."""

from dataclasses import dataclass, replace

from torch import nn

from flopbench.errors import unknown
from flopbench.symmetries import registry
from flopbench.symmetries.base import Symmetry


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


def schedule(version: str, depth: int) -> Schedule:
    """The symmetries of a network of `depth` blocks in a version: `plain`, `flop`, `hybrid`, `octic`.

    An equivariant version has its symmetry in every block; the hybrid and early-invariant ones have it in
    the first ⌊depth/2⌋, and the others are plain.

    Raises:
        FlopbenchError: no such version.
    """
    found = registry.find(version)
    if found is None:
        raise unknown("symmetry", version, (known.name for known in registry.versions()))
    symmetry: Symmetry = registry.load(found.about)
    if found.schedule == "equivariant":
        return Schedule(symmetry, symmetry, depth)
    plain: Symmetry = registry.load(registry.BASELINE.about)
    return Schedule(symmetry, plain, depth // 2, invariant=found.schedule == "early_invariant")
