"""Flopping in networks that mix tokens by a linear map: tokens are taken to the two irreps as well.

Source: Bökman, Nordström, Kahl, *Flopping for FLOPs*, ICML 2025 (arXiv:2502.05169), on ResMLP.
Every layer takes and gives `Quarters` and commutes with the change of sign of sa and as.
"""

from collections.abc import Callable, Iterable
from math import prod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from flopbench.cost import Cost, Shapes, gelu_operations, per_element
from flopbench.kernels.gelu import gelu
from flopbench.kernels.token_linear import aligned, token_linear
from flopbench.kernels.transform import HALVES, QUARTERS, Transform, to_mirror_pairs
from flopbench.symmetries.base import Gelu, Head, Symmetry, apart
from flopbench.symmetries.generators import Generator, flop_columns
from flopbench.symmetries.irreps import Group, Irrep, Rows, without_shift
from flopbench.symmetries.plain import TokenLinear
from flopbench.symmetries.registry import BUILTIN, About


class Quarters(NamedTuple):
    """A feature whose tokens are transformed too: named by the irreps of channel and token, in this order.

    A grid of odd width has a column of tokens that are their own mirror images. They have no
    antisymmetric partner, so the token-symmetric quarters hold more tokens, those last: n_s ≥ n_a.
    What is not invariant is None at the end of a network whose head does not see it.

    Attributes:
        ss: `[B, n_s, C/2]`, invariant.
        sa: `[B, n_a, C/2]`, changes its sign when the image is flopped.
        as_: `[B, n_s, C/2]`, changes its sign when the image is flopped.
        aa: `[B, n_a, C/2]`, invariant.
    """

    ss: Tensor
    sa: Any
    as_: Any
    aa: Tensor


class SplitTokens(nn.Module):
    """t_s = (L + R)/√2 and t_a = (L − R)/√2 of the left tokens and their mirror images.

    A centre column, on grids of odd width, is its own mirror image: it follows the others in t_s as it is.
    """

    def forward(self, x: Any) -> Quarters:
        """`[B, H, W, C]` to `[B, H·W, C]`."""
        (ss, sa), (as_, aa) = self._split(x.s), self._split(x.a)
        return Quarters(ss, sa, as_, aa)

    @staticmethod
    def _split(x: Tensor) -> tuple[Tensor, Tensor]:
        columns = x.shape[2]
        half = columns // 2
        left, right = x[:, :, :half], x[:, :, columns - half :].flip(2)
        t_s, t_a = (part.flatten(1, 2) for part in to_mirror_pairs(left, right))
        if columns % 2:
            t_s = torch.cat([t_s, x[:, :, half]], dim=1)
        return t_s, t_a

    # A sum or a difference, and a factor.
    cost = per_element(2)


class JoinTokens(nn.Module):
    """The inverse of `SplitTokens`, to the feature of images that `of` makes of s and a on the grid."""

    def __init__(self, grid: tuple[int, int], of: Callable[[Iterable[Tensor]], Any]) -> None:
        super().__init__()
        self.rows, self.columns = grid
        self.of = of

    def forward(self, x: Quarters) -> Any:
        """`[B, H·W, C]` to `[B, H, W, C]`."""
        return self.of([self._join(x.ss, x.sa), self._join(x.as_, x.aa)])

    def _join(self, t_s: Tensor, t_a: Tensor) -> Tensor:
        paired = t_a.shape[1]
        left, right = (part.unflatten(1, (self.rows, -1)) for part in to_mirror_pairs(t_s[:, :paired], t_a))
        centre = [t_s[:, paired:].unsqueeze(2)] if self.columns % 2 else []
        return torch.cat([left, *centre, right.flip(2)], dim=2)

    # A sum or a difference, and a factor.
    cost = per_element(2)


class TokensToPlain(nn.Module):
    """Tokens and channels back to mirror pairs: row-major tokens for plain layers."""

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.to_grid = JoinTokens(grid, tuple)

    def forward(self, x: Quarters) -> Tensor:
        """`[B, H·W, C]` to the same shape."""
        return torch.cat(to_mirror_pairs(*self.to_grid(x)), dim=-1).flatten(1, 2)

    # Of channels; that of tokens is a child.
    cost = per_element(2)


class InvariantiseTokens(nn.Module):
    """[ss, |as|] before [aa, |sa|]: the tokens of each irrep with all channels, all of them invariant."""

    def forward(self, x: Quarters) -> Tensor:
        """`[B, N, C]` to the same shape."""
        invariant = torch.cat([x.ss, x.aa], dim=1)
        absolute = torch.cat([x.as_.abs(), x.sa.abs()], dim=1)
        return torch.cat([invariant, absolute], dim=-1)

    cost = per_element(1 / 2)


class FlopTokensAffine(nn.Module):
    """α_s on ss and sa, α_a on as and aa; β_s on ss, β_a on aa: only what is invariant can be shifted."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight_s = nn.Parameter(torch.ones(width // 2))
        self.weight_a = nn.Parameter(torch.ones(width // 2))
        self.bias_s = nn.Parameter(torch.zeros(width // 2))
        self.bias_a = nn.Parameter(torch.zeros(width // 2))

    def forward(self, x: Quarters) -> Quarters:
        """`[B, N, C]` to the same shape."""
        return Quarters(
            torch.addcmul(self.bias_s, self.weight_s, x.ss),
            x.sa * self.weight_s,
            x.as_ * self.weight_a,
            torch.addcmul(self.bias_a, self.weight_a, x.aa),
        )

    def cost(self, shapes: Shapes) -> Cost:
        """A factor for all, a shift for what is invariant."""
        ss, _, _, aa = map(prod, shapes.inputs)
        return Cost(elementwise=shapes.read + ss + aa)


class TokensGelu(Gelu):
    """A GELU in mirror pairs of channels of mirror pairs of tokens."""

    def forward(self, x: Quarters) -> Quarters:
        """`[B, N, C]` to the same shape."""
        paired = x.sa.shape[1]
        if x.ss.shape[1] == paired:
            return super().forward(x)
        # What has no partner token has a partner channel all the same.
        pairs = x.ss[:, :paired], x.sa, x.as_[:, :paired], x.aa
        ss, sa, as_, aa = gelu(pairs, QUARTERS, self.kind, self.impl)
        s, a = gelu((x.ss[:, paired:], x.as_[:, paired:]), HALVES, self.kind, self.impl)
        return Quarters(torch.cat([ss, s], 1), sa, torch.cat([as_, a], 1), aa)

    def cost(self, shapes: Shapes) -> Cost:
        """That of pairs of pairs; where tokens have no partner, the transform is of two points."""
        ss, sa, *_ = map(prod, shapes.inputs)
        pairs = sa * gelu_operations(self.kind, QUARTERS.signs)
        return Cost(elementwise=pairs + (ss - sa) * gelu_operations(self.kind, HALVES.signs))


class FlopTokensMixing(nn.Module):
    """V_s on ss and as, V_a on sa and aa; bias on ss and on aa. Half the MACs and parameters."""

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = grid
        n_s, n_a = rows * (columns - columns // 2), rows * (columns // 2)
        self.s = TokenLinear(n_s, n_s)
        self.a = TokenLinear(n_a, n_a)

    def forward(self, x: Quarters) -> Quarters:
        """`[B, N, C]` to the same shape."""
        s, a = self.s, self.a
        if apart(TokenLinear, s, a):
            return Quarters(s(x.ss), without_shift(a, x.sa), without_shift(s, x.as_), a(x.aa))
        v_s, v_a = aligned(s.weight), aligned(a.weight)
        n_s, n_a = s.out_features, a.out_features
        return Quarters(
            token_linear(x.ss, v_s, s.bias, n_s),
            token_linear(x.sa, v_a, None, n_a),
            token_linear(x.as_, v_s, None, n_s),
            token_linear(x.aa, v_a, a.bias, n_a),
        )

    def cost(self, shapes: Shapes) -> Cost:
        """Each irrep's tokens meet those of the same irrep; the matrices are children, which this covers."""
        return Cost(sum(prod(shape) * shape[1] for shape in shapes.inputs), whole=True)


def _mean(one: Tensor, two: Tensor) -> Tensor:
    """The mean over the tokens of both; of means, since fp16 cannot hold every sum."""
    share = one.shape[1] / (one.shape[1] + two.shape[1])
    return one.mean(1) * share + two.mean(1) * (1 - share)


class FlopTokens(Group):
    """Flopping, with channels and tokens in the irreps: W_s on ss, sa, W_a on as, aa; shifts on ss and aa."""

    about: ClassVar[About] = BUILTIN["flop"]
    rows = Rows((Irrep("s"), Irrep("a")), of=(0, 0, 1, 1), invariant=(0, 3))
    feature = Quarters
    generators = (Generator("flop", flop_columns, ((0, 1), (1, -1), (2, -1), (3, 1)), on_grid=False),)
    transform: ClassVar[Transform] = QUARTERS
    gelu = TokensGelu
    layers: ClassVar[dict[str, type[nn.Module]]] = {
        **Group.layers,
        "token order": SplitTokens,
        "token mixing": FlopTokensMixing,
        "affine layer": FlopTokensAffine,
        "invariantisation": InvariantiseTokens,
    }

    def __init__(self, grid: tuple[int, int], images: Symmetry) -> None:
        if grid[1] < 2:
            raise ValueError(f"flop needs a grid of two columns of tokens or more, got {grid[0]}×{grid[1]}")
        self.grid, self.images = grid, images

    def pooled(self, x: Quarters, head: Head) -> Tensor:
        """The mean over the tokens ss and aa together; and over |as| and |sa| with `head="absolute"`."""
        mean = _mean(x.ss, x.aa)
        return mean if head == "invariant" else torch.cat([mean, _mean(x.as_.abs(), x.sa.abs())], dim=-1)

    def shapes(self, grid: tuple[int, ...], width: int) -> list[tuple[int, ...]]:
        """As many tokens of either irrep as the grid has pairs of columns, and the centre column's."""
        rows, columns = self.grid
        paired, symmetric = rows * (columns // 2), rows * (columns - columns // 2)
        return [(count, width // 2) for count in (symmetric, paired, symmetric, paired)]

    def change_of_basis(self) -> nn.Module:
        """Tokens and channels back to mirror pairs."""
        return TokensToPlain(self.grid)

    def join_tokens(self, grid: tuple[int, int]) -> nn.Module:
        """Tokens back to the halves of the grid."""
        return JoinTokens(grid, self.images.feature_of)
