"""Flopping: the group {identity, mirror image}. The paper's layers, in one file.

Source: Bökman, Nordström, Kahl, *Flopping for FLOPs*, ICML 2025 (arXiv:2502.05169), sections 3 and 4.
Every layer takes and gives `Halves` and commutes with s(h, w) ↦ s(h, W−1−w), a(h, w) ↦ −a(h, W−1−w).
"""

from math import prod
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.cost import Cost, Shapes, per_element
from flopbench.kernels import Impl
from flopbench.kernels.cache import DerivedCache
from flopbench.kernels.depthwise import depthwise
from flopbench.kernels.rotation import Plane, Rotations
from flopbench.kernels.transform import HALVES, SQRT_HALF, Transform, to_mirror_pairs
from flopbench.symmetries.base import Head, MemoryFormat, Symmetry, each
from flopbench.symmetries.flop_tokens import FlopTokens
from flopbench.symmetries.folding import Foldable
from flopbench.symmetries.generators import Generator, flop_columns
from flopbench.symmetries.irreps import Group, Irrep, regular
from flopbench.symmetries.positions import Positions
from flopbench.symmetries.registry import BUILTIN, About


class Halves(NamedTuple):
    """A feature of C channels in the two irreps of flopping, channels last.

    Attributes:
        s: symmetric half `[..., C/2]`: flopping the image maps s(h, w) to s(h, W−1−w).
        a: antisymmetric half `[..., C/2]`: flopping the image maps a(h, w) to −a(h, W−1−w). None at the
            end of a network whose head does not see it.
    """

    s: Tensor
    a: Any


class FlopPatchEmbed(nn.Module):
    """Patch embedding with mirrored kernels, computed as a product with the folded patch.

    Symmetric kernels are [w, mirror(w)], antisymmetric ones [w, −mirror(w)]; so each output is w times
    left ± mirror(right), at half the MACs of the convolution. A patch of odd width has a centre
    column, free in symmetric kernels and zero in antisymmetric ones.
    """

    def __init__(self, channels: int, width: int, patch_size: int, normalise: bool) -> None:
        super().__init__()
        half, P = width // 2, patch_size
        self.patch_size = P
        self.scale = SQRT_HALF if normalise else 1.0
        self.weight_s = nn.Parameter(torch.empty(half, channels, P, P - P // 2))
        self.weight_a = nn.Parameter(torch.empty(half, channels, P, P // 2))
        self.bias = nn.Parameter(torch.zeros(half))
        # As the whole kernel of the convolution would be: the fan-in is that of the full patch.
        bound = (channels * P * P) ** -0.5
        for parameter in (self.weight_s, self.weight_a, self.bias):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, images: Tensor) -> Halves:
        """`[B, channels, H, W]` to `[B, H/P, W/P, width]`."""
        B, C, H, W = images.shape
        P = self.patch_size
        # [B, H/P, W/P, C, P, P]: each patch's pixels as a row of the product.
        patches = images.view(B, C, H // P, P, W // P, P).permute(0, 2, 4, 1, 3, 5)
        left, right = patches[..., : P // 2], patches[..., P - P // 2 :].flip(-1)
        total, difference = left + right, left - right
        if P % 2:
            total = torch.cat([total, patches[..., P // 2 : P // 2 + 1]], dim=-1)
        # Scaling the small weights instead of the outputs saves a pass over the features.
        s = F.linear(total.flatten(3), self.weight_s.flatten(1) * self.scale, self.bias * self.scale)
        a = F.linear(difference.flatten(3), self.weight_a.flatten(1) * self.scale)
        return Halves(s, a)

    def cost(self, shapes: Shapes) -> Cost:
        """Products with the folded patch, and a sum and a difference for every pair of mirrored pixels."""
        P, (_, colours, *_) = self.patch_size, shapes.inputs[0]
        s, a = map(prod, shapes.outputs)
        rows = colours * P
        folded = s * rows * (P - P // 2) + a * rows * (P // 2)
        return Cost(folded, elementwise=shapes.read * 2 * (P // 2) // P, published=(s + a) * rows * P)


class FlopPositionEmbedding(Positions):
    """Learnt for the left half of the grid: s += [e_s, mirror(e_s)], a += [e_a, −mirror(e_a)].

    The paper reorders the tokens, left half before its mirror image. Nothing in a ViT but this
    embedding sees the order, so the embedding is laid out row-major instead and no token moves. On
    a grid of odd width the centre column is its own mirror image: free in s, zero in a.
    """

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__(width, grid)
        rows, columns = grid
        self.weight_s = nn.Parameter(torch.empty(1, rows, columns - columns // 2, width // 2))
        self.weight_a = nn.Parameter(torch.empty(1, rows, columns // 2, width // 2))
        for parameter in (self.weight_s, self.weight_a):
            nn.init.trunc_normal_(parameter, std=0.02)

    def unfolded(self) -> Halves:
        """`[1, H, W, C]`."""
        e_s, e_a = self.weight_s, self.weight_a
        columns = e_a.shape[2]
        centre = [torch.zeros_like(e_s[:, :, columns:])] if e_s.shape[2] > columns else []
        e_s = torch.cat([e_s, e_s[:, :, :columns].flip(2)], dim=2)
        e_a = torch.cat([e_a, *centre, -e_a.flip(2)], dim=2)
        return Halves(e_s, e_a)

    def learnt(self, whole: Halves) -> Halves:
        """The left half, of s with the centre column."""
        columns = whole.s.shape[2] // 2
        return Halves(whole.s[:, :, : whole.s.shape[2] - columns], whole.a[:, :, :columns])

    def cost(self, shapes: Shapes) -> Cost:
        """A sum per element."""
        return Cost(elementwise=shapes.written)


def symmetric_kernel(half: Tensor) -> Tensor:
    """[w, centre, mirror(w)]: `[..., (K+1)/2]`, the centre column last, to `[..., K]`."""
    return torch.cat([half, half[..., :-1].flip(-1)], dim=-1)


def antisymmetric_kernel(half: Tensor) -> Tensor:
    """[w, 0, −mirror(w)]: `[..., (K−1)/2]` to `[..., K]`."""
    return torch.cat([half, half.new_zeros(*half.shape[:-1], 1), -half.flip(-1)], dim=-1)


MirroredKernels = tuple[Tensor, ...]
"""Kernel and bias for the channels of s, [S₁, A₂], and for those of a, [A₁, S₂]."""


def _mirrored_depthwise(x: Halves, kernels: MirroredKernels, contiguous: bool, impl: Impl) -> Halves:
    kernel_s, bias_s, kernel_a, bias_a = kernels
    s1, s2 = depthwise(x.s, kernel_s, bias_s, contiguous=contiguous, impl=impl).chunk(2, dim=-1)
    a1, a2 = depthwise(x.a, kernel_a, bias_a, contiguous=contiguous, impl=impl).chunk(2, dim=-1)
    return Halves(torch.cat([s1, a1], dim=-1), torch.cat([s2, a2], dim=-1))


class FlopDepthwise(nn.Module, Foldable):
    """Depthwise convolution with mirrored kernels: s ↦ [S₁ s1, A₁ a1], a ↦ [A₂ s2, S₂ a2].

    s1, s2 are the halves of s and a1, a2 those of a. S is symmetric, [w, centre, mirror(w)], A
    antisymmetric, [w, 0, −mirror(w)]; the bias is on what lands in s. Learnt are the left halves.
    """

    impl: Impl = "auto"

    def __init__(self, width: int, kernel_size: int, memory_format: MemoryFormat) -> None:
        super().__init__()
        if width % 4 or kernel_size % 2 == 0:
            raise ValueError(
                f"a mirrored depthwise convolution needs a multiple of 4 channels and a kernel of odd size, "
                f"got {width} and {kernel_size}"
            )
        quarter, K = width // 4, kernel_size
        self.width, self.kernel_size = width, K
        self.contiguous = memory_format == "contiguous"
        # Named by the irreps that they lead from and to.
        self.weight_ss = nn.Parameter(torch.empty(quarter, 1, K, K // 2 + 1))
        self.weight_as = nn.Parameter(torch.empty(quarter, 1, K, K // 2))
        self.weight_sa = nn.Parameter(torch.empty(quarter, 1, K, K // 2))
        self.weight_aa = nn.Parameter(torch.empty(quarter, 1, K, K // 2 + 1))
        self.bias = nn.Parameter(torch.zeros(2 * quarter))
        self._kernels = DerivedCache()
        for weight in (self.weight_ss, self.weight_as, self.weight_sa, self.weight_aa):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Halves) -> Halves:
        """`[B, H, W, C]` to the same shape."""
        if self.training:
            return _mirrored_depthwise(x, self._build(), self.contiguous, self.impl)
        kernels = self._kernels.get(self._build, *self.parameters())
        return _mirrored_depthwise(x, kernels, self.contiguous, self.impl)

    def folded(self) -> "FoldedDepthwise":
        """The same for inference alone, with the whole kernels for weights."""
        return FoldedDepthwise(self._build(), self.contiguous, self.impl)

    def train(self, mode: bool = True) -> Self:
        """Also drops the kernels that were kept for inference."""
        self._kernels.clear()
        return super().train(mode)

    def _build(self) -> MirroredKernels:
        """Those of what was learnt."""
        kernel_s = torch.cat([symmetric_kernel(self.weight_ss), antisymmetric_kernel(self.weight_sa)])
        kernel_a = torch.cat([antisymmetric_kernel(self.weight_as), symmetric_kernel(self.weight_aa)])
        bias_1, bias_2 = self.bias.chunk(2)
        zeros = torch.zeros_like(bias_1)
        return kernel_s, torch.cat([bias_1, zeros]), kernel_a, torch.cat([bias_2, zeros])

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return f"{self.width}, kernel_size={self.kernel_size}"

    def cost(self, shapes: Shapes) -> Cost:
        """A kernel per channel, as without symmetry: mirroring ties weights and saves no product."""
        return Cost(shapes.written * self.kernel_size**2)


class FoldedDepthwise(nn.Module):
    """`FlopDepthwise` for inference alone: the whole kernels are its weights, so none can be out of date."""

    impl: Impl = "auto"

    def __init__(self, kernels: MirroredKernels, contiguous: bool, impl: Impl) -> None:
        super().__init__()
        self.contiguous, self.impl = contiguous, impl
        own = (nn.Parameter(kernel.detach(), requires_grad=False) for kernel in kernels)
        self.kernel_s, self.bias_s, self.kernel_a, self.bias_a = own

    def forward(self, x: Halves) -> Halves:
        """`[B, H, W, C]` to the same shape."""
        kernels = self.kernel_s, self.bias_s, self.kernel_a, self.bias_a
        return _mirrored_depthwise(x, kernels, self.contiguous, self.impl)


class FlopDownsample(nn.Module):
    """2×2 convolution of stride 2: s ↦ S₁ s + A₁ a, a ↦ A₂ s + S₂ a, S = [w, w], A = [w, −w] along the width.

    So it equals a product with the folded columns, left + right for S and left − right for A, at half
    the MACs of the convolution.
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        # [out, row, in]: for s the inputs are [s₊, a₋], for a they are [a₊, s₋].
        self.weight_s = nn.Parameter(torch.empty(out_width // 2, 2, width))
        self.weight_a = nn.Parameter(torch.empty(out_width // 2, 2, width))
        self.bias = nn.Parameter(torch.zeros(out_width // 2))
        for weight in (self.weight_s, self.weight_a):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Halves) -> Halves:
        """`[B, H, W, C]` to `[B, H/2, W/2, C']`."""
        left, right = each(lambda part: _corner(part, 0), x), each(lambda part: _corner(part, 1), x)
        total, difference = each(torch.add, left, right), each(torch.sub, left, right)
        s = torch.cat([total.s, difference.a], dim=-1).flatten(3)
        a = torch.cat([total.a, difference.s], dim=-1).flatten(3)
        return Halves(
            F.linear(s, self.weight_s.flatten(1), self.bias),
            F.linear(a, self.weight_a.flatten(1)),
        )

    def cost(self, shapes: Shapes) -> Cost:
        """Each output meets all channels of two rows of folded columns; unfolded, of two rows and columns."""
        channels = sum(shape[-1] for shape in shapes.inputs)
        folded = shapes.written * 2 * channels
        return Cost(folded, elementwise=shapes.read, published=2 * folded)


def _corner(x: Tensor, column: int) -> Tensor:
    """One column of each 2×2 window: `[B, H, W, C]` to a view `[B, H/2, W/2, 2, C]`, rows before channels."""
    return x[:, :, column::2].unflatten(1, (-1, 2)).transpose(2, 3)


class FlopToPlain(nn.Module):
    """x = [(s + a)/√2, (s − a)/√2] along the channels: mirror pairs, an orthogonal change of basis."""

    def forward(self, x: Halves) -> Tensor:
        """Halves of `[..., C]` to a tensor `[..., C]`."""
        return torch.cat(to_mirror_pairs(x.s, x.a), dim=-1)

    # A sum or a difference, and a factor.
    cost = per_element(2)


class FlopInvariantise(nn.Module):
    """x = [s, |a|] along the channels: whatever follows, the network is invariant."""

    def forward(self, x: Halves) -> Tensor:
        """Halves of `[..., C]` to a tensor `[..., C]`."""
        return torch.cat([x.s, x.a.abs()], dim=-1)

    cost = per_element(1 / 2)


class Flop(Group):
    """Equivariance to left-right mirroring, with as many symmetric channels as antisymmetric ones."""

    about: ClassVar[About] = BUILTIN["flop"]
    rows = regular(Irrep("s"), Irrep("a"))
    feature = Halves
    generators = (Generator("flop", flop_columns, ((0, 1), (1, -1))),)
    transform: ClassVar[Transform] = HALVES
    # Flopping is diag(1, −1) on a channel of s and one of a, which changes the sense in which they turn: so
    # they turn along x. Two of one irrep keep theirs, and turn along y.
    rotations = Rotations((4, 4), (Plane("y", 0, 1), Plane("x", 2, 6), Plane("y", 4, 5), Plane("x", 3, 7)))
    layers: ClassVar[dict[str, type[nn.Module]]] = {
        **Group.layers,
        "patch embedding": FlopPatchEmbed,
        "position embedding": FlopPositionEmbedding,
        "depthwise convolution": FlopDepthwise,
        "downsampling": FlopDownsample,
        "change of basis": FlopToPlain,
        "invariantisation": FlopInvariantise,
    }

    def with_tokens(self, grid: tuple[int, int]) -> Symmetry:
        """Tokens in the two irreps as well."""
        return FlopTokens(grid, self)

    def invariants(self, x: Halves, head: Head) -> Tensor:
        """s, or [s, |a|] with `head="absolute"`."""
        return x.s if head == "invariant" else torch.cat([x.s, x.a.abs()], dim=-1)

    def pooled(self, x: Halves, head: Head) -> Tensor:
        """The mean of s, or of [s, |a|] with `head="absolute"`."""
        s = x.s.flatten(1, -2).mean(1)
        return s if head == "invariant" else torch.cat([s, x.a.abs().flatten(1, -2).mean(1)], dim=-1)


FLOP = Flop()
