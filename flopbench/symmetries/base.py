"""What a symmetry has to say about each layer. Models are written against this and nothing else.

A feature is a tensor for the plain symmetry, `Halves` for flopping and `Quarters` for flopping with
transformed tokens. Models never look inside: they pass features from layer to layer, and `each` applies
what acts on every part alike. So the layout is decided here alone: separate tensors a part. On a CPU a
batched product of stacked halves is a little faster than two (tests/benchmarks/test_layouts.py), blocks
are not.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from flopbench.kernels import Impl
from flopbench.kernels.mirror_gelu import Activation

Head = Literal["invariant", "absolute"]
MemoryFormat = Literal["contiguous", "channels_last"]


class Halves(NamedTuple):
    """A feature of C channels in the two irreps of flopping, channels last.

    Attributes:
        s: symmetric half `[..., C/2]`: flopping the image maps s(h, w) to s(h, W−1−w).
        a: antisymmetric half `[..., C/2]`: flopping the image maps a(h, w) to −a(h, W−1−w). None at the
            end of a network whose head does not see it.
    """

    s: Tensor
    a: Any


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


Feature = Tensor | Halves | Quarters


def each(fn: Callable[..., Tensor], feature: Feature, *others: Feature) -> Any:
    """Apply `fn` to each part of a feature, with the same part of the others; an absent part stays None."""
    if isinstance(feature, Tensor):
        return fn(feature, *others)
    same: Any = zip(feature, *others, strict=True)
    parts: Any = (None if parts[-1] is None else fn(*parts) for parts in same)
    return type(feature)(*parts)


def parts_of(feature: Feature) -> list[Tensor]:
    """The parts of a feature; of a tensor, itself."""
    return [feature] if isinstance(feature, Tensor) else list(feature)


def together(fn: Callable[[list[Tensor]], Sequence[Tensor]], feature: Feature) -> Any:
    """Apply `fn` to all parts of a feature at once, and make a feature of what it returns."""
    parts = fn(parts_of(feature))
    return parts[0] if isinstance(feature, Tensor) else type(feature)(*parts)


def mirror(x: Any) -> Any:
    """How a flop of the image acts on what a network computes from it.

    Args:
        x: images `[B, C, H, W]`; logits `[B, K]`, which it leaves alone; `Halves` on a grid
            `[B, H, W, C/2]`; or `Quarters`.

    Raises:
        TypeError: anything else, for there the action depends on what the axes mean.
    """
    if isinstance(x, Quarters):
        return Quarters(x.ss, -x.sa, -x.as_, x.aa)
    if isinstance(x, Halves) and x.s.ndim == 4:
        return Halves(x.s.flip(2), -x.a.flip(2))
    if isinstance(x, Tensor) and x.ndim in (2, 4):
        return x.flip(3) if x.ndim == 4 else x
    shape = tuple(x.shape) if isinstance(x, Tensor) else [tuple(part.shape) for part in x]
    raise TypeError(f"how a flop acts on {type(x).__name__} {shape} is not known: state the action")


class Symmetry:
    """A symmetry: the layers that commute with it. Every layer maps features to features.

    Shapes below name the whole feature: `[B, N, C]` means C channels in all, however they are split.
    What a symmetry does not have raises NotImplementedError.
    """

    name: ClassVar[str]
    divisor: ClassVar[int]
    """Channel counts, per head too, must be multiples of it."""

    def check_channels(self, channels: int, what: str = "channels") -> int:
        """Return `channels`, or raise ValueError unless they split into the symmetry's irreps."""
        if channels < 1 or channels % self.divisor:
            raise ValueError(
                f"{self.name} needs a positive multiple of {self.divisor} {what}, got {channels}"
            )
        return channels

    def patch_embed(self, channels: int, width: int, patch_size: int, *, normalise: bool = True) -> nn.Module:
        """Images `[B, channels, H, W]` to patches' embeddings `[B, H/P, W/P, width]`.

        `normalise` keeps the 1/√2 that ViT and ConvNeXt have on both irreps and ResMLP has not.
        """
        self._lacks("patch embedding")

    def position_embedding(self, width: int, grid: tuple[int, int]) -> nn.Module:
        """Add a learnt embedding of the position to `[B, H, W, width]`."""
        self._lacks("position embedding")

    def class_token(self, width: int) -> nn.Module:
        """Put a learnt token before the others: `[B, N, width]` to `[B, 1 + N, width]`."""
        self._lacks("class token")

    def linear(self, in_features: int, out_features: int, *, invariant_only: bool = False) -> nn.Module:
        """Affine map of the channels, `[..., in_features]` to `[..., out_features]`.

        With `invariant_only` the parts of the output that change under the symmetry are not computed
        but None: nothing after this layer uses them. The parameters are the same.
        """
        self._lacks("linear layer")

    def layer_norm(self, width: int, eps: float) -> nn.Module:
        """Layer norm over the channels of `[..., width]`."""
        self._lacks("layer norm")

    def affine(self, width: int) -> nn.Module:
        """Scale and shift of each channel of `[..., width]`: ResMLP's norm."""
        self._lacks("affine layer")

    def activation(self, kind: Activation = "gelu") -> nn.Module:
        """Pointwise non-linearity: "gelu" is the exact one, "quick_gelu" x·σ(1.702 x)."""
        self._lacks("activation")

    def residual(self, width: int, *, layer_scale: float | None, drop_path: float) -> nn.Module:
        """Module `(x, branch) ↦ x + λ · drop_path(branch)`, λ per channel, 1 if `layer_scale` is None.

        Where a `norm` of this symmetry is its third argument it returns the sum and the norm of the sum.
        """
        self._lacks("residual")

    def activated(self, linear: nn.Module, activation: nn.Module, x: Any) -> Any:
        """`activation(linear(x))`, both of this symmetry; in one kernel where there is one for them."""
        return activation(linear(x))

    def split_heads(self, qkv: Any, heads: int, impl: Impl = "auto") -> tuple[Tensor, Tensor, Tensor]:
        """`[B, N, 3C]` to query, key and value `[B, heads, N, C/heads]`, plain tensors.

        Scores of the result are invariant: irreps lie side by side within a head.
        """
        self._lacks("attention")

    def merge_heads(self, x: Tensor, impl: Impl = "auto") -> Any:
        """`[B, heads, N, C/heads]`, as `split_heads` lays it out, back to a feature `[B, N, C]`."""
        self._lacks("attention")

    def depthwise(self, width: int, kernel_size: int, memory_format: MemoryFormat) -> nn.Module:
        """Depthwise convolution of `[B, H, W, width]`, padded to the same shape.

        `memory_format` is the layout in which the convolution itself runs.
        """
        self._lacks("depthwise convolution")

    def downsample(self, width: int, out_width: int) -> nn.Module:
        """2×2 convolution of stride 2, `[B, H, W, width]` to `[B, H/2, W/2, out_width]`."""
        self._lacks("downsampling")

    def with_tokens(self, grid: tuple[int, int]) -> "Symmetry":
        """The same symmetry for networks that mix tokens by a linear map: tokens are transformed too."""
        self._lacks("token mixing")

    def split_tokens(self) -> nn.Module:
        """A grid `[B, H, W, C]` to the feature `[B, N, C]` that `token_linear` takes."""
        self._lacks("token mixing")

    def token_linear(self, grid: tuple[int, int]) -> nn.Module:
        """Affine map of the tokens of a grid (rows, columns), one for all channels: `[B, N, C]` kept."""
        self._lacks("token mixing")

    def invariants(self, x: Any, head: Head) -> Tensor:
        """The invariant channels `[..., invariant_width]` of `[..., C]`, a plain tensor."""
        self._lacks("pointwise invariants")

    def pooled(self, x: Any, head: Head) -> Tensor:
        """The mean of the invariants over all positions: `[B, ..., C]` to `[B, invariant_width]`."""
        self._lacks("pooling")

    def invariant_width(self, width: int, head: Head) -> int:
        """How many invariant channels a feature of `width` has."""
        self._lacks("invariants")

    def change_of_basis(self) -> nn.Module:
        """To an ordinary tensor with the same content, which plain layers continue with: H(X)."""
        self._lacks("change of basis")

    def invariantise(self) -> nn.Module:
        """To an ordinary tensor of invariants of the same shape: I(X)."""
        self._lacks("invariantisation")

    def _lacks(self, what: str) -> NoReturn:
        raise NotImplementedError(f"the symmetry {self.name} has no {what}")


class DropPath(nn.Module):
    """Stochastic depth: drop a sample's whole branch, all parts with one mask, and rescale the rest."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"drop_path must lie in [0, 1), got {probability}")
        self.probability = probability

    def forward(self, x: Any) -> Any:
        """`[B, ...]` to the same shape."""
        if not self.training or self.probability == 0.0:
            return x
        first: Tensor = x if isinstance(x, Tensor) else x[0]
        keep = 1.0 - self.probability
        shape = (first.shape[0],) + (1,) * (first.ndim - 1)
        mask = torch.empty(shape, dtype=first.dtype, device=first.device).bernoulli_(keep) / keep
        return each(lambda part: part * mask, x)

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return f"{self.probability}"


class Dropout(nn.Module):
    """Dropout with an independent mask for each part of a feature.

    A given mask does not commute with a flop, its distribution does: the network is equivariant in
    evaluation, and in distribution while training.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(probability)

    def forward(self, x: Any) -> Any:
        """`[...]` to the same shape."""
        return each(self.drop, x)
