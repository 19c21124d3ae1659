"""Which symmetry each block of a network has."""

from dataclasses import dataclass, replace

from torch import nn

from flopbench.errors import unknown
from flopbench.symmetries.base import Symmetry
from flopbench.symmetries.plain import PLAIN
from flopbench.symmetries.registry import find, load, versions


@dataclass(frozen=True)
class Schedule:
    """One symmetry per block, with at most one change: `first` up to `switch` blocks, then `last`.

    `join` maps the feature of `first` to that of `last` before block `switch`, or after the last block.
    """

    first: Symmetry
    last: Symmetry
    switch: int
    invariant: bool = False
    depth: int = 0

    def __getitem__(self, block: int) -> Symmetry:
        """The symmetry of block `block`."""
        return self.first if block < self.switch else self.last

    def with_tokens(self, grid: tuple[int, int]) -> "Schedule":
        """The same for a network that mixes the tokens of a grid (rows, columns) by linear maps."""
        first = self.first.with_tokens(grid)
        last = first if self.last is self.first else self.last.with_tokens(grid)
        return replace(self, first=first, last=last)

    def eps(self, block: int, usual: float) -> float:
        """ε of the layer norms of block `block`, which in released networks may go by its symmetry."""
        mixed = self.first.mixed_eps
        return mixed if mixed is not None and block < self.switch < self.depth else usual

    def join(self, width: int, invariants: str | None = None) -> nn.Module:
        """The module between `first` and `last`; an identity where these are the same.

        Args:
            width: channels on either side.
            invariants: which, where the symmetry has several; None for its usual ones.

        Raises:
            ValueError: there are no such invariants, or nothing is made invariant.
        """
        if self.first is not self.last and self.invariant:
            return self.first.invariantise(width, invariants)
        if invariants is not None:
            raise ValueError(f"invariants={invariants!r}: this version has no invariantisation")
        return nn.Identity() if self.first is self.last else self.first.change_of_basis()


def schedule(version: str, depth: int, *, on_grid: bool = False) -> Schedule:
    """The symmetries of a network of `depth` blocks in one of its versions.

    Equivariant, E(X): all blocks have the symmetry. Hybrid, H(X), and early invariant, I(X): the first
    ⌊depth/2⌋ blocks have it, the others none. Averaged: none has it.

    Args:
        version: its name.
        depth: number of blocks.
        on_grid: whether what comes after the blocks is on the grid and has the symmetry, too; else a symmetry
            may end in ordinary features.

    Raises:
        FlopbenchError: no such version.
        ValueError: no block.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1 block, got {depth}")
    found = find(version)
    if found is None:
        raise unknown("symmetry", version, [known.name for known in versions()])
    own = load(found.about)
    if found.schedule == "averaged":
        return Schedule(PLAIN, PLAIN, depth, depth=depth)
    if found.schedule == "equivariant":
        ends_plain = own.ends_plain and not on_grid
        return Schedule(own, PLAIN if ends_plain else own, depth, ends_plain, depth)
    invariant = found.schedule == "early_invariant"
    return Schedule(own, PLAIN, depth // 2, invariant, depth)
