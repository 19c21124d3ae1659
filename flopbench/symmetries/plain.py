"""No symmetry: the ordinary layers, which make the baseline X."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flopbench.symmetries.base import DropPath, Head, Symmetry


class PatchEmbed(nn.Module):
    """Patch embedding as the strided convolution of ViT and ConvNeXt."""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, channels, H, W]` to `[B, H/P, W/P, width]`."""
        return self.proj(images).permute(0, 2, 3, 1)


class PositionEmbedding(nn.Module):
    """A learnt vector a position, row-major `[1, H·W, C]`."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, grid[0] * grid[1], width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` to the same shape."""
        return x + self.weight.view(1, *x.shape[1:])


class ClassToken(nn.Module):
    """A learnt token in front of the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 1, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, C]` to `[B, 1 + N, C]`."""
        return torch.cat([self.weight.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)


class Residual(nn.Module):
    """x + drop_path(λ · branch)."""

    def __init__(self, width: int, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        self.gamma = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """`[..., C]` and `[..., C]` to `[..., C]`."""
        if self.gamma is not None:
            branch = branch * self.gamma
        return x + self.drop_path(branch)


class Plain(Symmetry):
    """The trivial group: every layer is the ordinary one, and every channel counts as invariant."""

    name: ClassVar[str] = "plain"
    divisor: ClassVar[int] = 1

    def patch_embed(self, channels: int, width: int, patch_size: int, *, normalise: bool = True) -> nn.Module:
        """A strided convolution; `normalise` concerns irreps, of which there is one."""
        return PatchEmbed(channels, width, patch_size)

    def position_embedding(self, width: int, grid: tuple[int, int]) -> nn.Module:
        """A learnt vector a position."""
        return PositionEmbedding(width, grid)

    def class_token(self, width: int) -> nn.Module:
        """A learnt token."""
        return ClassToken(width)

    def linear(self, in_features: int, out_features: int) -> nn.Module:
        """`torch.nn.Linear`."""
        return nn.Linear(in_features, out_features)

    def layer_norm(self, width: int, eps: float) -> nn.Module:
        """`torch.nn.LayerNorm`."""
        return nn.LayerNorm(width, eps=eps)

    def gelu(self) -> nn.Module:
        """`torch.nn.GELU`, exact."""
        return nn.GELU()

    def residual(self, width: int, *, layer_scale: float | None, drop_path: float) -> nn.Module:
        """x + drop_path(λ · branch)."""
        return Residual(width, layer_scale, drop_path)

    def split_heads(self, qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Views of `[B, N, 3C]`, whose channels are ordered (q, k, v) × head × C/heads."""
        B, N, C3 = qkv.shape
        q, k, v = qkv.view(B, N, 3, heads, C3 // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def merge_heads(self, x: Tensor) -> Tensor:
        """`[B, heads, N, C/heads]` to `[B, N, C]`."""
        return x.transpose(1, 2).flatten(2)

    def invariants(self, x: Tensor, head: Head) -> Tensor:
        """All channels."""
        return x

    def invariant_width(self, width: int, head: Head) -> int:
        """All of them."""
        return width

    def change_of_basis(self) -> nn.Module:
        """Nothing to change."""
        return nn.Identity()

    def invariantise(self) -> nn.Module:
        """Nothing to change."""
        return nn.Identity()


PLAIN: Any = Plain()
