"""One layer as a network of its own, for every symmetry: what a suite of layers measures.

A layer works on features, a benchmark hands out images. The pixels are noise, so they are taken as
features as they lie in memory: nothing is copied, and a layer's time is the layer's.
"""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flopbench.cost import free
from flopbench.models.catalog import LAYER_PATCH
from flopbench.models.layers import Attention, Mlp
from flopbench.symmetries import Symmetry, schedule
from flopbench.symmetries.base import each

Grid = tuple[int, int]


class Kind(NamedTuple):
    """How a layer is built for a symmetry, a width and a grid, and what it takes.

    Attributes:
        build: `(symmetry, width, grid)` to the layer.
        takes: "channels" `[B, 3HW/C, C]`; "tokens" `[B, HW/256, C]`, "mixed" those of a network that mixes
            tokens; "grid" `[B, H/16, W/16, C]`; "images" `[B, 3, H, W]`.
        inputs: number of features.
    """

    build: Callable[[Symmetry, int, Grid], nn.Module]
    takes: str = "channels"
    inputs: int = 1


KINDS: dict[str, Kind] = {
    "linear": Kind(lambda symmetry, width, _: symmetry.linear(width, width)),
    "mlp": Kind(lambda symmetry, width, _: Mlp(symmetry, width, 4 * width)),
    "layer_norm": Kind(lambda symmetry, width, _: symmetry.layer_norm(width, 1e-6)),
    "gelu": Kind(lambda symmetry, width, _: symmetry.activation()),
    "residual": Kind(
        lambda symmetry, width, _: symmetry.residual(width, layer_scale=0.1, drop_path=0.0), inputs=2
    ),
    "attention": Kind(
        lambda symmetry, width, _: Attention(symmetry, width, width // 64, fused=True), "tokens"
    ),
    "patch_embed": Kind(lambda symmetry, width, _: symmetry.patch_embed(3, width, LAYER_PATCH), "images"),
    "depthwise": Kind(lambda symmetry, width, _: symmetry.depthwise(width, 7, "channels_last"), "grid"),
    "downsample": Kind(lambda symmetry, width, _: symmetry.downsample(width, 2 * width), "grid"),
    "token_linear": Kind(lambda symmetry, _, grid: symmetry.token_linear(grid), "mixed"),
    "token_gelu": Kind(lambda symmetry, *_: symmetry.activation(), "mixed"),
}


class SingleLayer(nn.Module):
    """A layer of width C between an image, whose pixels it takes for features, and its own output.

    In training the features require gradients, as they would within a network; torch.compile does not
    trace that, so a compiled layer has the gradients of its parameters alone.

    Args:
        image_size: pixels (height, width), multiples of 16; the grid of tokens is a 16th of it.
        num_classes: of no concern to a layer.
        kind: a key of `KINDS`.
        width: C; at most 768 for layers on a grid, which has no more pixels to give.
        symmetry: plain, or a symmetry's name.

    Raises:
        ValueError: channels that do not split into the symmetry's irreps.
    """

    def __init__(
        self, *, image_size: Grid, num_classes: int, kind: str, width: int, symmetry: str = "plain"
    ) -> None:
        super().__init__()
        self.kind, self.width = KINDS[kind], width
        self.grid = (image_size[0] // LAYER_PATCH, image_size[1] // LAYER_PATCH)
        first = schedule(symmetry, 1).first
        self.first = first.with_tokens(self.grid) if self.kind.takes == "mixed" else first
        self.layer = self.kind.build(self.first, width, self.grid)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """`[B, 3, H, W]` to the parts of the layer's output."""
        if self.kind.takes == "images":
            output = self.layer(images)
        else:
            feature = self._feature(images)
            if self.training and not torch.compiler.is_compiling():
                feature = each(Tensor.requires_grad_, feature)
            output = self.layer(*(feature,) * self.kind.inputs)
        return output if isinstance(output, Tensor) else tuple(output)

    def _feature(self, images: Tensor) -> Any:
        B, channels, H, W = images.shape
        C = self.width
        rows, columns = self.grid
        tokens = channels * H * W // C if self.kind.takes == "channels" else rows * columns
        shape = (rows, columns) if self.kind.takes == "grid" else (tokens,)
        pixels = images.flatten()[: B * tokens * C]
        shapes = self.first.shapes(shape, C)
        parts = pixels.split([B * prod(one) for one in shapes])
        return self.first.feature_of(part.view(B, *one) for part, one in zip(parts, shapes, strict=True))

    cost = free
