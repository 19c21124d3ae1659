"""Flopping in networks that mix tokens by a linear map: tokens are taken to the two irreps as well.

Source: Bökman, Nordström, Kahl, *Flopping for FLOPs*, ICML 2025 (arXiv:2502.05169), on ResMLP.
Every layer takes and gives `Quarters` and commutes with the change of sign of sa and as.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flopbench.kernels.linear import linear_parts
from flopbench.kernels.mirror_gelu import to_mirror_pairs
from flopbench.kernels.residual import add_scaled
from flopbench.kernels.token_linear import aligned, token_linear
from flopbench.symmetries.base import Halves, Head, Quarters, Symmetry, apart, each
from flopbench.symmetries.plain import TokenLinear
from flopbench.symmetries.registry import BUILTIN, About
from flopbench.symmetries.shared import IrrepLinear, IrrepResidual, Operands, without_shift


class SplitTokens(nn.Module):
    """t_s = (L + R)/√2 and t_a = (L − R)/√2 of the left tokens and their mirror images.

    A centre column, on grids of odd width, is its own mirror image: it follows the others in t_s as it is.
    """

    def forward(self, x: Halves) -> Quarters:
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


class JoinTokens(nn.Module):
    """The inverse of `SplitTokens`, then mirror pairs of channels: row-major tokens for plain layers."""

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.rows, self.columns = grid

    def forward(self, x: Quarters) -> Tensor:
        """`[B, H·W, C]` to the same shape."""
        s, a = self._join(x.ss, x.sa), self._join(x.as_, x.aa)
        return torch.cat(to_mirror_pairs(s, a), dim=-1).flatten(1, 2)

    def _join(self, t_s: Tensor, t_a: Tensor) -> Tensor:
        paired = t_a.shape[1]
        left, right = (part.unflatten(1, (self.rows, -1)) for part in to_mirror_pairs(t_s[:, :paired], t_a))
        centre = [t_s[:, paired:].unsqueeze(2)] if self.columns % 2 else []
        return torch.cat([left, *centre, right.flip(2)], dim=2)


class InvariantiseTokens(nn.Module):
    """[ss, |as|] before [aa, |sa|]: the tokens of each irrep with all channels, all of them invariant."""

    def forward(self, x: Quarters) -> Tensor:
        """`[B, N, C]` to the same shape."""
        invariant = torch.cat([x.ss, x.aa], dim=1)
        absolute = torch.cat([x.as_.abs(), x.sa.abs()], dim=1)
        return torch.cat([invariant, absolute], dim=-1)


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


class FlopTokensLinear(IrrepLinear):
    """W_s on ss and sa, W_a on as and aa; b_s on ss, b_a on aa. Half the MACs and parameters."""

    def __init__(self, in_features: int, out_features: int, invariant_only: bool) -> None:
        super().__init__(in_features, out_features, invariant_only, bias=True)

    def forward(self, x: Quarters) -> Quarters:
        """`[B, N, in_features]` to `[B, N, out_features]`."""
        if self.called_apart():
            ss, aa = self.s(x.ss), self.a(x.aa)
            if self.invariant_only:
                return Quarters(ss, None, None, aa)
            return Quarters(ss, without_shift(self.s, x.sa), without_shift(self.a, x.as_), aa)
        weights, biases = self.operands
        if self.invariant_only:
            ss, aa = linear_parts([x.ss, x.aa], weights, [biases[0], biases[3]], self.impl)
            return Quarters(ss, None, None, aa)
        return Quarters(*linear_parts(x, weights, biases, self.impl))

    @property
    def operands(self) -> Operands:
        """W_s and W_a; the biases by quarter."""
        return [self.s.weight, self.a.weight], [self.s.bias, None, None, self.a.bias]


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


class FlopTokensResidual(IrrepResidual):
    """x + λ · drop_path(branch), λ by the channel's irrep, one mask for all."""

    def forward(self, x: Quarters, branch: Quarters) -> Quarters:
        """`[B, N, C]` and `[B, N, C]` to `[B, N, C]`."""
        gammas: Any = (self.gamma_s, self.gamma_s, self.gamma_a, self.gamma_a)
        # The branch comes last, for what it lacks the sum lacks.
        return each(lambda part, gamma, b: add_scaled(part, b, gamma), x, gammas, self.drop_path(branch))


def _mean(one: Tensor, two: Tensor) -> Tensor:
    """The mean over the tokens of both; of means, since fp16 cannot hold every sum."""
    share = one.shape[1] / (one.shape[1] + two.shape[1])
    return one.mean(1) * share + two.mean(1) * (1 - share)


class FlopTokens(Symmetry):
    """Flopping, with channels and tokens in the irreps."""

    about: ClassVar[About] = BUILTIN["flop"]
    layers: ClassVar[dict[str, type[nn.Module]]] = {
        "token order": SplitTokens,
        "linear layer": FlopTokensLinear,
        "token mixing": FlopTokensMixing,
        "affine layer": FlopTokensAffine,
        "residual": FlopTokensResidual,
        "invariantisation": InvariantiseTokens,
    }

    def __init__(self, grid: tuple[int, int]) -> None:
        if grid[1] < 2:
            raise ValueError(f"flop needs a grid of two columns of tokens or more, got {grid[0]}×{grid[1]}")
        self.grid = grid

    def pooled(self, x: Quarters, head: Head) -> Tensor:
        """The mean over the tokens ss and aa together; and over |as| and |sa| with `head="absolute"`."""
        mean = _mean(x.ss, x.aa)
        return mean if head == "invariant" else torch.cat([mean, _mean(x.as_.abs(), x.sa.abs())], dim=-1)

    def change_of_basis(self) -> nn.Module:
        """Tokens and channels back to mirror pairs."""
        return JoinTokens(self.grid)
