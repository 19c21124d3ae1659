"""A symmetry of one's own, whole in one file: mirroring top and bottom, as `vit_b16.vertical`.

Run in this folder: `python own_symmetry.py`. Suites and the command line know what an installed package
defines like this, if it has an entry point for it in the group `flopbench.symmetries`.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from flopbench.kernels.transform import HALVES, to_mirror_pairs
from flopbench.symmetries import About, Generator, Group, Head, Irrep, register, regular


class Mirrored(NamedTuple):
    """A feature of C channels, channels last: what stays as it is, and what changes its sign."""

    even: Tensor
    odd: Any


def top_and_bottom(x: Tensor, rows: int, columns: int) -> Tensor:
    """They change places."""
    return x.flip(rows)


class PatchEmbed(nn.Module):
    """Even and odd kernels, [w, w mirrored] and [w, −w mirrored]: products with a folded patch.

    So w is multiplied by the sum or the difference of a patch's upper half and its mirrored lower half, at
    half the MACs of a convolution.
    """

    def __init__(self, channels: int, width: int, patch_size: int, normalise: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.scale = 0.5**0.5 if normalise else 1.0
        inputs = channels * patch_size * (patch_size // 2)
        self.even = nn.Linear(inputs, width // 2)
        self.odd = nn.Linear(inputs, width // 2, bias=False)

    def forward(self, images: Tensor) -> Mirrored:
        """`[B, channels, H, W]` to `[B, H/P, W/P, width]`."""
        size = self.patch_size
        cells = images.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5)
        upper, lower = cells.split(size // 2, dim=4)
        lower = lower.flip(4)
        even, odd = (upper + lower).flatten(3), (upper - lower).flatten(3)
        return Mirrored(self.even(even) * self.scale, self.odd(odd) * self.scale)


class PositionEmbedding(nn.Module):
    """Learnt for the upper half of the grid; the lower one has its mirror image, odd with a minus."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = grid
        if rows % 2:
            raise ValueError(f"vertical needs a grid with an even number of rows, got {rows}×{columns}")
        self.weight_even = nn.Parameter(torch.randn(1, rows // 2, columns, width // 2) * 0.02)
        self.weight_odd = nn.Parameter(torch.randn(1, rows // 2, columns, width // 2) * 0.02)

    def forward(self, x: Mirrored) -> Mirrored:
        """`[B, H, W, C]` to the same shape."""
        even = torch.cat([self.weight_even, self.weight_even.flip(1)], dim=1)
        odd = torch.cat([self.weight_odd, -self.weight_odd.flip(1)], dim=1)
        return Mirrored(x.even + even, x.odd + odd)


class ToPlain(nn.Module):
    """An orthogonal change of basis, to what plain layers continue with in `vit_b16.vertical_hybrid`."""

    def forward(self, x: Mirrored) -> Tensor:
        """`[..., C]` to a tensor of the same shape."""
        return torch.cat(to_mirror_pairs(x.even, x.odd), dim=-1)


class Invariants(nn.Module):
    """What stays as it is, and the absolute value of what changes its sign."""

    def forward(self, x: Mirrored) -> Tensor:
        """`[..., C]` to a tensor of the same shape."""
        return torch.cat([x.even, x.odd.abs()], dim=-1)


class Vertical(Group):
    """Equivariance to mirroring top and bottom. Layers without a grid follow from the irreps."""

    about: ClassVar[About] = About("vertical", labels=("V",), divisor=2)
    rows = regular(Irrep("even"), Irrep("odd"))
    feature = Mirrored
    generators = (Generator("vertical mirroring", top_and_bottom, ((0, 1), (1, -1))),)
    transform = HALVES
    layers: ClassVar[dict[str, type[nn.Module]]] = {
        **Group.layers,
        "patch embedding": PatchEmbed,
        "position embedding": PositionEmbedding,
        "change of basis": ToPlain,
        "invariantisation": Invariants,
    }

    def invariants(self, x: Mirrored, head: Head) -> Tensor:
        """Of a class token, what an invariant head sees."""
        return x.even if head == "invariant" else torch.cat([x.even, x.odd.abs()], dim=-1)


VERTICAL = register(Vertical())

if __name__ == "__main__":
    import flopbench

    print(flopbench.count_flops("vit_s16.vertical"))
    print(flopbench.benchmark("vit_s16", "vit_s16.vertical", devices="cpu"))
