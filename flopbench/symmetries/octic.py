"""The octic group: mirroring and quarter turns, eight elements. The layers that are its own.

Source: Nordström, Edstedt, Kahl, Bökman, *Octic Vision Transformers* (arXiv:2505.15441), and its code. The
turn r by 90° counter-clockwise and the flop m multiply the irreps A1, A2, B1, B2 by signs and act on the two
components of E as [[0, −1], [1, 0]] and diag(−1, 1).
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.cost import ROOT, Cost, Shapes, free
from flopbench.errors import unknown
from flopbench.kernels.rotation import Plane, Rotations
from flopbench.kernels.transform import Transform
from flopbench.symmetries.base import Head
from flopbench.symmetries.folding import Foldable, Folded
from flopbench.symmetries.generators import Generator, flop_columns, quarter_turn
from flopbench.symmetries.irreps import Group, Irrep, regular
from flopbench.symmetries.positions import Positions
from flopbench.symmetries.registry import BUILTIN, About


class Octic(NamedTuple):
    """A feature of C channels in the irreps of the octic group, channels last.

    Attributes:
        a1: `[..., C/8]`, invariant.
        a2: `[..., C/8]`, changes its sign when the image is mirrored.
        b1: `[..., C/8]`, changes its sign when the image is turned.
        b2: `[..., C/8]`, changes its sign when the image is mirrored, and when it is turned.
        e1: `[..., C/4]`, the first components of C/4 copies of E: to −e2 when turned, to −e1 when mirrored.
        e2: `[..., C/4]`, the second ones: to e1 when turned, unchanged when mirrored.
    """

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    e1: Tensor
    e2: Tensor


DEVIATION = 8 * 0.02
"""With which class tokens are drawn; positions with it over √2."""


def _triangle(x: Tensor, n: int, sign: int) -> Tensor:
    """All that there is to x = ± xᵀ, `[..., n, n]`: the upper triangle row by row, for + with the diagonal.

    Of slices, for an index would be a tensor that has to live on some device.
    """
    first = 0 if sign > 0 else 1
    return torch.cat([x[..., row, row + first :] for row in range(n - first)], dim=-1)


class OcticPatchEmbed(nn.Module, Foldable):
    """Patch embedding with kernels that transform by an irrep, computed as products with the folded patch.

    Learnt is a quarter w per kernel. The kernel is Σ_g χ(g) g·ŵ, ŵ being w in the top-left corner: there it
    has w + wᵀ (A1, B2) or w − wᵀ (A2, B1), mirrored to the other corners by the irrep's signs. For E it is
    [[w, −w↔], [w↕, −w↔↕]], and that turned by 90° for the second component. So an output is a product with
    the patch's four quarters, mirrored onto the first and added by signs; and with w ± wᵀ, a product of
    triangles. It takes 3/16 of the convolution's MACs.
    """

    def __init__(self, channels: int, width: int, patch_size: int, normalise: bool) -> None:
        super().__init__()
        if patch_size < 4 or patch_size % 2:
            raise ValueError(f"octic kernels need an even patch size of at least 4, got {patch_size}")
        c, n = width // 8, patch_size // 2
        self.patch_size = patch_size
        self.scale = 8**-0.5 if normalise else 1.0
        self.weight_a1 = nn.Parameter(torch.empty(c, channels, n, n))
        self.weight_a2 = nn.Parameter(torch.empty(c, channels, n, n))
        self.weight_b1 = nn.Parameter(torch.empty(c, channels, n, n))
        self.weight_b2 = nn.Parameter(torch.empty(c, channels, n, n))
        self.weight_e = nn.Parameter(torch.empty(2 * c, channels, n, n))
        self.bias = nn.Parameter(torch.empty(c))
        bound = (channels * n * n) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, images: Tensor) -> Octic:
        """`[B, channels, H, W]` to `[B, H/P, W/P, width]`."""
        return _patches(self.patch_size, images, *self._kernels())

    def folded(self) -> Folded:
        """The same for inference alone, with the matrices of the products for weights."""
        return Folded(partial(_patches, self.patch_size), *self._kernels())

    def _kernels(self) -> tuple[Tensor, ...]:
        """The matrices of the products, `[outputs, inputs]`, and the bias: small, so these are scaled."""
        e = self.weight_e * (self.scale * 2**0.5)
        return (
            self._corner(self.weight_a1, 1),
            self._corner(self.weight_a2, -1),
            self._corner(self.weight_b1, -1),
            self._corner(self.weight_b2, 1),
            e.flatten(1),
            -e.mT.flatten(1),
            self.bias,
        )

    def _corner(self, weight: Tensor, sign: int) -> Tensor:
        """⟨w, x ± xᵀ⟩: an entry above the diagonal meets the weight of its mirror image, too."""
        weight = _triangle(weight + sign * weight.tril(-1).mT, self.patch_size // 2, sign)
        return self.scale * weight.flatten(1)

    def cost(self, shapes: Shapes) -> Cost:
        """Products with the folded patch; a sum for each pixel and fold, of squares and then of triangles."""
        colours, n = shapes.inputs[0][1], self.patch_size // 2
        over, under, square = n * (n + 1) // 2, n * (n - 1) // 2, n * n
        inner = (over, under, under, over, square, square)
        folded = colours * sum(prod(out) * size for out, size in zip(shapes.outputs, inner, strict=True))
        published = colours * self.patch_size**2 * shapes.written
        return Cost(folded, elementwise=shapes.read * 5 // 2, published=published)


def _patches(patch_size: int, images: Tensor, *kernels: Tensor) -> Octic:
    """What `OcticPatchEmbed` computes with its matrices and its bias."""
    a1, a2, b1, b2, e1, e2, bias = kernels
    B, C, H, W = images.shape
    P, n = patch_size, patch_size // 2
    # [B, H/P, W/P, C, P, P]: each patch's pixels as a row of the products.
    patches = images.view(B, C, H // P, P, W // P, P).permute(0, 2, 4, 1, 3, 5)
    left, right = patches[..., :n], patches[..., n:].flip(-1)
    total, difference = left + right, left - right
    # Named by what they do when the patch is mirrored left-right and top-bottom.
    even_even = total[..., :n, :] + total[..., n:, :].flip(-2)
    even_odd = total[..., :n, :] - total[..., n:, :].flip(-2)
    odd_even = difference[..., :n, :] + difference[..., n:, :].flip(-2)
    odd_odd = difference[..., :n, :] - difference[..., n:, :].flip(-2)
    even, odd = even_even.mT, odd_odd.mT
    return Octic(
        F.linear(_triangle(even_even + even, n, 1).flatten(3), a1, bias),
        F.linear(_triangle(odd_odd - odd, n, -1).flatten(3), a2),
        F.linear(_triangle(even_even - even, n, -1).flatten(3), b1),
        F.linear(_triangle(odd_odd + odd, n, 1).flatten(3), b2),
        F.linear(odd_even.flatten(3), e1),
        F.linear(even_odd.flatten(3), e2),
    )


class OcticPositionEmbedding(Positions):
    """Learnt for a quarter of the grid, and mirrored and turned to the others as the irreps have it."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__(width, grid)
        rows, columns = grid
        if rows != columns or rows % 2:
            raise ValueError(f"octic positions need a square grid of an even side, got {rows}×{columns}")
        c, n = width // 8, rows // 2
        self.weight_a1 = nn.Parameter(torch.empty(n, n, c))
        self.weight_a2 = nn.Parameter(torch.empty(n, n, c))
        self.weight_b1 = nn.Parameter(torch.empty(n, n, c))
        self.weight_b2 = nn.Parameter(torch.empty(n, n, c))
        self.weight_e = nn.Parameter(torch.empty(n, n, 2 * c))
        for parameter in self.parameters():
            nn.init.trunc_normal_(parameter, std=DEVIATION * 0.5**0.5)

    def unfolded(self) -> Octic:
        """`[H, W, C]`."""

        def corner(weight: Tensor, sign: int) -> Tensor:
            return weight + sign * weight.transpose(0, 1)

        e = _unfold(self.weight_e, -1, 1)
        return Octic(
            _unfold(corner(self.weight_a1, 1), 1, 1),
            _unfold(corner(self.weight_a2, -1), -1, -1),
            _unfold(corner(self.weight_b1, -1), 1, 1),
            _unfold(corner(self.weight_b2, 1), -1, -1),
            e,
            quarter_turn(e, 0, 1),
        )

    def learnt(self, whole: Octic) -> list[Tensor]:
        """The first quarter, halved where its transpose is added to what is learnt."""
        n = self.grid[0] // 2
        *corners, e = (part[..., :n, :n, :] for part in whole[:5])
        return [*(corner / 2 for corner in corners), e]

    def cost(self, shapes: Shapes) -> Cost:
        """A sum per element."""
        return Cost(elementwise=shapes.written)


def _unfold(corner: Tensor, across: int, down: int) -> Tensor:
    """`[n, n, c]` and its mirror images by these signs, `[2n, 2n, c]`."""
    top = torch.cat([corner, across * corner.flip(1)], dim=1)
    return torch.cat([top, down * top.flip(0)], dim=0)


def _eighths(x: Octic) -> tuple[Tensor, ...]:
    """x0 to x7, `[..., C/8]` each: x4 and x5 are the first copy of E, x6 and x7 the second."""
    (x4, x6), (x5, x7) = x.e1.chunk(2, dim=-1), x.e2.chunk(2, dim=-1)
    return x.a1, x.a2, x.b1, x.b2, x4, x5, x6, x7


def linear(x: Octic) -> list[Tensor]:
    """|A1|: of degree 1, and all that no other part has a say in."""
    return [x.a1.abs()]


def power_spectrum(x: Octic) -> list[Tensor]:
    """A1, |A2|, |B1|, |B2| and the length of each copy of E: what is left of each irrep alone."""
    # Not a root of squares, whose gradient is not a number where a class token's E is still zero.
    length = torch.linalg.vector_norm(torch.stack([x.e1, x.e2]), dim=0)
    return [x.a1, x.a2.abs(), x.b1.abs(), x.b2.abs(), length]


def _cubes(x: Octic) -> list[Tensor]:
    """Products of three eighths that are invariant and have no A1 in them."""
    _, x1, x2, x3, x4, x5, x6, x7 = _eighths(x)
    return [
        x3 * x6 * x7,
        x3 * x5 * x6 + x3 * x4 * x7,
        x3 * x4 * x5,
        x2 * x6**2 - x2 * x7**2,
        x2 * x4 * x6 - x2 * x5 * x7,
        x2 * x4**2 - x2 * x5**2,
        x1 * x5 * x6 - x1 * x4 * x7,
        x1 * x2 * x3,
    ]


def _squares(x: Octic) -> list[Tensor]:
    _, x1, x2, x3, x4, x5, x6, x7 = _eighths(x)
    return [x6**2 + x7**2, x4 * x6 + x5 * x7, x4**2 + x5**2, x3**2, x2**2, x1**2]


def third_order(x: Octic) -> list[Tensor]:
    """All invariant polynomials of degree 3."""
    return [x.a1**3, *(x.a1 * square for square in _squares(x)), *_cubes(x)]


def polynomial(x: Octic) -> list[Tensor]:
    """Polynomials of degree up to 5 that generate all invariant ones."""
    _, x1, x2, x3, x4, x5, x6, x7 = _eighths(x)
    return [
        x.a1,
        *_squares(x),
        *_cubes(x),
        x6**4 + x7**4,
        x4 * x6**3 + x5 * x7**3,
        x4**2 * x6**2 + x5**2 * x7**2,
        x4**3 * x6 + x5**3 * x7,
        x4**4 + x5**4,
        x2 * x3 * x5 * x6 - x2 * x3 * x4 * x7,
        x1 * x3 * x6**2 - x1 * x3 * x7**2,
        x1 * x3 * x4 * x6 - x1 * x3 * x5 * x7,
        x1 * x3 * x4**2 - x1 * x3 * x5**2,
        x1 * x2 * x6 * x7,
        x1 * x2 * x5 * x6 + x1 * x2 * x4 * x7,
        x1 * x2 * x4 * x5,
        x1 * x6**3 * x7 - x1 * x6 * x7**3,
        x1 * x5 * x6**3 - x1 * x4 * x7**3,
        x1 * x4 * x5 * x6**2 - x1 * x4 * x5 * x7**2,
        x1 * x4**2 * x5 * x6 - x1 * x4 * x5**2 * x7,
        x1 * x4**3 * x5 - x1 * x4 * x5**3,
    ]


class Invariants(NamedTuple):
    """Invariants of a feature.

    Attributes:
        of: from the feature to them.
        eighths: of its width, that they have.
        operations: elementwise, per position and channel of an eighth.
    """

    of: Callable[[Octic], list[Tensor]]
    eighths: int
    operations: int


INVARIANTS = {
    "power_spectrum": Invariants(power_spectrum, 6, 3 + 2 * (2 + 1 + ROOT)),
    "linear": Invariants(linear, 1, 1),
    "third_order": Invariants(third_order, 15, 50),
    "polynomial": Invariants(polynomial, 32, 146),
}
"""By name."""


class OcticInvariantise(nn.Module):
    """Invariants of each token and a dense linear map of them: whatever follows, the network is invariant."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        if kind not in INVARIANTS:
            raise unknown("invariants", str(kind), INVARIANTS)
        self.kind = kind
        self.proj = nn.Linear(INVARIANTS[kind].eighths * width // 8, width)

    def forward(self, x: Octic) -> Tensor:
        """`[..., C]` to an ordinary tensor `[..., C]`."""
        return self.proj(torch.cat(INVARIANTS[self.kind].of(x), dim=-1))

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return self.kind

    def cost(self, shapes: Shapes) -> Cost:
        """The invariants; the linear map is a child."""
        return Cost(elementwise=INVARIANTS[self.kind].operations * prod(shapes.inputs[0]))


class OcticToPlain(nn.Module):
    """The eight parts side by side, [x0, …, x7], as they are: isotypical, no change of basis."""

    def forward(self, x: Octic) -> Tensor:
        """`[..., C]` to an ordinary tensor `[..., C]`."""
        return torch.cat(_eighths(x), dim=-1)

    cost = free


class OcticGroup(Group):
    """Equivariance to mirroring and quarter turns."""

    about: ClassVar[About] = BUILTIN["octic"]
    rows = regular(Irrep("a1"), Irrep("a2"), Irrep("b1"), Irrep("b2"), Irrep("e", 2))
    feature = Octic
    # r and m, which every other element is made of.
    generators = (
        Generator("quarter turn", quarter_turn, ((0, 1), (1, 1), (2, -1), (3, -1), (5, -1), (4, 1))),
        Generator("flop", flop_columns, ((0, 1), (1, -1), (2, 1), (3, -1), (4, -1), (5, 1))),
    )
    # The slices of e1 are x4 and x6, those of e2 x5 and x7; the last four points are x4, −x7, x6 and x5.
    transform: ClassVar[Transform] = Transform(
        (1, 1, 1, 1, 2, 2), (0, 1, 2, 3, 4, 7, 5, 6), (1, 1, 1, 1, 1, -1, 1, 1)
    )
    # (a1 ± b1)/√2 are as cosines of x and of y, with e1 and e2 for their sines, y upwards. The same times xy:
    # (a2 ± b2)/√2 with e2 and e1. Sums and differences there and back are what that takes more than no group.
    rotations = Rotations(
        (1, 1, 1, 1, 2, 2),
        (Plane("x", 0, 4), Plane("y", 2, 6, -1), Plane("x", 1, 7), Plane("y", 3, 5)),
        mixed=((0, 2), (1, 3)),
    )
    class_token_deviation: ClassVar[float] = DEVIATION
    ends_plain: ClassVar[bool] = True
    mixed_eps: ClassVar[float | None] = 1e-5
    layers: ClassVar[dict[str, type[nn.Module]]] = {
        **Group.layers,
        "patch embedding": OcticPatchEmbed,
        "position embedding": OcticPositionEmbedding,
        "change of basis": OcticToPlain,
    }

    def invariantise(self, width: int, kind: str | None = None) -> nn.Module:
        """Invariants of a `kind` of `INVARIANTS`, the power spectrum by default, and a linear map of them."""
        return OcticInvariantise(self.check_channels(width), kind or "power_spectrum")

    def invariants(self, x: Octic, head: Head) -> Tensor:
        """The power spectrum, absolute values or not: A1 alone is an eighth of the channels."""
        return torch.cat(power_spectrum(x), dim=-1)

    def invariant_width(self, width: int, head: Head) -> int:
        """Six eighths."""
        return INVARIANTS["power_spectrum"].eighths * width // 8


OCTIC = OcticGroup()
