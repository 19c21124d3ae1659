"""No symmetry: the ordinary layers, which make the baseline X."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from flopbench.cost import Cost, Shapes, convolution, elements, free, layer_norm, linear, per_element
from flopbench.kernels import Impl
from flopbench.kernels.depthwise import depthwise
from flopbench.kernels.dispatch import choose
from flopbench.kernels.layer_norm import LAYER_NORM
from flopbench.kernels.linear import Maps, linear_parts
from flopbench.kernels.residual import add_scaled
from flopbench.kernels.rotation import Plane, Rotations
from flopbench.kernels.token_linear import aligned, token_linear
from flopbench.symmetries.base import DropPath, Head, MemoryFormat, Symmetry, apart
from flopbench.symmetries.folding import Absorbs, Foldable, scale_rows
from flopbench.symmetries.positions import Positions
from flopbench.symmetries.registry import BUILTIN, About


class PatchEmbed(nn.Module):
    """Patch embedding as the strided convolution of ViT and ConvNeXt."""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, channels, H, W]` to `[B, H/P, W/P, width]`."""
        return self.proj(images).permute(0, 2, 3, 1)

    cost = free


class PositionEmbedding(Positions):
    """A learnt vector per position, row-major `[1, H·W, C]`."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__(width, grid)
        self.weight = nn.Parameter(torch.empty(1, grid[0] * grid[1], width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def unfolded(self) -> Tensor:
        """`[1, H, W, C]`."""
        return self.weight.unflatten(1, self.grid)

    def learnt(self, whole: Tensor) -> tuple[Tensor]:
        """All of it."""
        return (whole,)

    def cost(self, shapes: Shapes) -> Cost:
        """A sum per element."""
        return Cost(elementwise=shapes.written)


class ClassToken(nn.Module):
    """Learnt tokens in front of the others: the class token, and registers after it."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, count, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, C]` to `[B, count + N, C]`."""
        return torch.cat([self.weight.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)

    cost = free


class Residual(nn.Module, Absorbs):
    """x + λ · drop_path(branch)."""

    def __init__(self, width: int, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        self.gamma = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, branch: Tensor, norm: nn.Module | None = None, *, ahead: bool = False
    ) -> Any:
        """`[..., C]` and `[..., C]` to `[..., C]`; with a `norm`, to that and its norm, None if `ahead`."""
        x = add_scaled(x, self.drop_path(branch), self.gamma)
        return x if norm is None else (x, None if ahead else norm(x))

    def absorbs(self, branch: nn.Module) -> bool:
        """Of a `Linear` that nobody looks into."""
        return not apart(Linear, branch)

    def absorb(self, branch: nn.Linear, *, centre: bool) -> None:
        """λ goes into the weights."""
        scale_rows(branch, self.gamma, centre=centre)
        self.gamma = None

    def cost(self, shapes: Shapes) -> Cost:
        """A sum per element, and a factor; a norm is another layer."""
        return Cost(elementwise=(1 + (self.gamma is not None)) * elements(shapes.outputs[:1]))


class Affine(nn.Module):
    """Scale and shift of each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., C]` to the same shape."""
        return torch.addcmul(self.bias, self.weight, x)

    cost = per_element(2)


class Linear(nn.Linear):
    """Affine map of the channels."""

    impl: Impl = "auto"

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in_features]` to `[..., out_features]`."""
        return linear_parts([input], self.maps, self.impl)[0]

    @property
    def maps(self) -> Maps:
        """W and b."""
        return Maps([self.weight], (0,), [self.bias])

    def called_apart(self) -> bool:
        """It has no modules that could be."""
        return False

    cost = linear


class LayerNorm(nn.LayerNorm):
    """Torch's, one kernel already."""

    impl: Impl = "auto"

    def forward(self, input: Tensor) -> Tensor:
        """`[..., C]` to the same shape."""
        choose(LAYER_NORM, self.impl, (input,))
        return super().forward(input)

    cost = layer_norm


class TokenLinear(nn.Linear, Foldable):
    """An `nn.Linear` whose features are the tokens."""

    def forward(self, input: Tensor) -> Tensor:
        """`[B, N, C]` to `[B, M, C]`."""
        return token_linear(input, self.weight, self.bias, self.out_features)

    def folded(self) -> Self:
        """Itself, its weight padded once for all calls where every call would pad it."""
        self.weight = nn.Parameter(aligned(self.weight.detach()), requires_grad=False)
        return self

    def cost(self, shapes: Shapes) -> Cost:
        """Every channel's tokens meet the matrix."""
        batch, _, channels = shapes.inputs[0]
        return Cost(batch * channels * self.in_features * self.out_features)


class Flatten(nn.Module):
    """The grid's tokens in row-major order."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` to `[B, H·W, C]`."""
        return x.flatten(1, 2)

    cost = free


class Unflatten(nn.Unflatten):
    """The grid of tokens in row-major order, `[B, H·W, C]` to `[B, H, W, C]`."""

    cost = free


class GridConv2d(nn.Conv2d):
    """A convolution of channels-last features, a view of which is what torch calls channels_last."""

    def reset_parameters(self) -> None:
        """Truncated normal weights (σ = 0.02) and a zero bias, as ConvNeXt has them."""
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """`[B, H, W, C]` to `[B, H', W', C']`."""
        return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    cost = convolution


class Depthwise(GridConv2d):
    """A convolution of each channel, padded to the same shape."""

    impl: Impl = "auto"

    def __init__(self, width: int, kernel_size: int, memory_format: MemoryFormat) -> None:
        super().__init__(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.contiguous = memory_format == "contiguous"

    def forward(self, input: Tensor) -> Tensor:
        """`[B, H, W, C]` to the same shape."""
        return depthwise(input, self.weight, self.bias, contiguous=self.contiguous, impl=self.impl)

    cost = convolution


class Plain(Symmetry):
    """The trivial group: every layer is the ordinary one, and every channel counts as invariant."""

    about: ClassVar[About] = BUILTIN["plain"]
    rotations = Rotations((4,), (Plane("y", 0, 2), Plane("x", 1, 3)))
    layers: ClassVar[dict[str, type[nn.Module]]] = {
        "position embedding": PositionEmbedding,
        "class token": ClassToken,
        "linear layer": Linear,
        "layer norm": LayerNorm,
        "affine layer": Affine,
        "residual": Residual,
        "depthwise convolution": Depthwise,
        "token order": Flatten,
    }

    def patch_embed(self, channels: int, width: int, patch_size: int, *, normalise: bool = True) -> nn.Module:
        """A strided convolution; `normalise` concerns irreps, of which there is one."""
        return PatchEmbed(channels, width, patch_size)

    def linear(self, in_features: int, out_features: int, *, invariant_only: bool = False) -> nn.Module:
        """Dense; all that it computes counts as invariant."""
        return Linear(in_features, out_features)

    def downsample(self, width: int, out_width: int) -> nn.Module:
        """A strided convolution."""
        return GridConv2d(width, out_width, 2, stride=2)

    def join_tokens(self, grid: tuple[int, int]) -> nn.Module:
        """A view."""
        return Unflatten(1, grid)

    def token_linear(self, grid: tuple[int, int]) -> nn.Module:
        """A full matrix."""
        return TokenLinear(grid[0] * grid[1], grid[0] * grid[1])

    def with_tokens(self, grid: tuple[int, int]) -> Symmetry:
        """Itself."""
        return self

    def invariants(self, x: Tensor, head: Head) -> Tensor:
        """All channels."""
        return x

    def pooled(self, x: Tensor, head: Head) -> Tensor:
        """The mean."""
        return x.flatten(1, -2).mean(1)


PLAIN = Plain()
