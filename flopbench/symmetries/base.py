"""What a symmetry has to say about each layer. Models are written against this and nothing else.

A feature is a tensor for the plain symmetry, and for another a NamedTuple of its parts, the rows of its
irreps. Models never look inside: they pass features from layer to layer, and `each` applies what acts on
every part alike. So the layout is decided here alone: a tensor per part. On a CPU a batched product of
stacked halves is a little faster than two (tests/benchmarks/test_layouts.py), blocks are not.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, NoReturn

import torch
from torch import Tensor, nn

from flopbench.cost import Cost, Shapes, free, gelu_operations
from flopbench.kernels import Impl
from flopbench.kernels.dispatch import Why, choose
from flopbench.kernels.gelu import Activation, gelu
from flopbench.kernels.linear import LINEAR_GELU, linear_gelu_parts
from flopbench.kernels.rotation import Rotations
from flopbench.kernels.transform import POINT, Transform
from flopbench.private import hooked
from flopbench.symmetries.generators import Generator
from flopbench.symmetries.registry import About

Head = Literal["invariant", "absolute"]
MemoryFormat = Literal["contiguous", "channels_last"]


Feature = Tensor | tuple[Tensor, ...]
"""A tensor of the plain symmetry, or the parts of another's: a NamedTuple of tensors `[..., C_p]`.

A part that the head of a network does not see is None at its end.
"""


def each(fn: Callable[..., Tensor], feature: Feature, *others: Feature) -> Any:
    """Apply `fn` to each part of a feature, with the same part of the others; an absent part stays None."""
    if isinstance(feature, Tensor):
        return fn(feature, *others)
    same: Any = zip(feature, *others, strict=True)
    return like(feature, (None if parts[-1] is None else fn(*parts) for parts in same))


def like(feature: Feature, parts: Iterable[Tensor | None]) -> Any:
    """A feature of other parts, of the same kind as `feature`."""
    kind: Any = type(feature)
    return kind(*parts)


def parts_of(feature: Feature) -> list[Tensor]:
    """The parts of a feature; of a tensor, itself."""
    return [feature] if isinstance(feature, Tensor) else list(feature)


def together(fn: Callable[[list[Tensor]], Sequence[Tensor]], feature: Feature) -> Any:
    """Apply `fn` to all parts of a feature at once, and make a feature of what it returns."""
    parts = fn(parts_of(feature))
    return parts[0] if isinstance(feature, Tensor) else like(feature, parts)


def apart(kind: type[nn.Module], *modules: nn.Module) -> Why:
    """Why modules have to be called one by one, or "": each ought to be of `kind`, as that made it.

    One kernel that does the work of several modules reads their parameters and calls none of them. It may
    do so only while nobody can tell: none has hooks, was replaced, patched or parametrised.
    """
    for module in modules:
        if type(module) is not kind:
            return f"a {type(module).__name__} in place of a {kind.__name__}"
        if hooked(module):
            return f"hooks on a {kind.__name__}"
        if "forward" in module.__dict__:
            return f"a {kind.__name__} with a forward of its own"
    return ""


class Gelu(nn.Module):
    """A GELU: of a tensor, or of a feature's parts in their transform, where it commutes with the group."""

    impl: Impl = "auto"

    def __init__(self, kind: Activation, transform: Transform = POINT) -> None:
        super().__init__()
        self.kind: Activation = kind
        self.transform = transform

    def forward(self, x: Any) -> Any:
        """`[..., C]` to the same shape."""
        return together(lambda parts: gelu(parts, self.transform, self.kind, self.impl), x)

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return self.kind

    def cost(self, shapes: Shapes) -> Cost:
        """The non-linearity and the transform there and back."""
        signs = self.transform.signs
        return Cost(elementwise=shapes.read // len(signs) * gelu_operations(self.kind, signs))


class Symmetry:
    """A symmetry: the layers that commute with it. Every layer maps features to features.

    Shapes below name the whole feature: `[B, N, C]` means C channels in all, however they are split.
    What a symmetry does not have raises NotImplementedError.
    """

    about: ClassVar[About]
    """Its name, its labels and what it asks for, which are known without its layers."""
    layers: ClassVar[dict[str, type[nn.Module]]]
    """The class of each layer: it takes the arguments of the method of this class that returns it."""
    generators: ClassVar[tuple[Generator, ...]] = ()
    """Of its group: whatever commutes with these commutes with all of it."""
    feature: ClassVar[Any] = Tensor
    """The type of its features."""
    transform: ClassVar[Transform] = POINT
    """To the points of a feature that the group permutes: what non-linearities act on."""
    gelu: ClassVar[type[Gelu]] = Gelu
    """The class of the activation."""
    rotations: ClassVar[Rotations | None] = None
    """How rotary positions turn the channels of a head, where they can without breaking the symmetry."""
    ends_plain: ClassVar[bool] = False
    """Whether a network that has it in all blocks makes its features invariant after the last of them, and
    ends as ordinary ones do, instead of showing its head the invariant channels alone."""
    mixed_eps: ClassVar[float | None] = None
    """ε of layer norms in blocks that ordinary ones follow, where it is not the network's own."""

    @property
    def name(self) -> str:
        """What it is called in messages, and in names of networks."""
        return self.about.name

    @property
    def divisor(self) -> int:
        """The order of the group: one channel in so many is invariant, and there are multiples of it."""
        return self.about.divisor

    def check_channels(self, channels: int, what: str = "channels") -> int:
        """Return `channels`, or raise ValueError unless they split into the symmetry's irreps."""
        if channels < 1 or channels % self.divisor:
            raise ValueError(
                f"{self.name} needs a positive multiple of {self.divisor} {what}, got {channels}"
            )
        return channels

    def patch_embed(self, channels: int, width: int, patch_size: int, *, normalise: bool = True) -> nn.Module:
        """Images `[B, channels, H, W]` to patches' embeddings `[B, H/P, W/P, width]`.

        `normalise` keeps the factor 1/√|G| on the kernels, which ViT and ConvNeXt have and ResMLP has not.
        """
        return self._layer("patch embedding", channels, self.check_channels(width), patch_size, normalise)

    def position_embedding(self, width: int, grid: tuple[int, int]) -> nn.Module:
        """Add a learnt embedding of the position to `[B, H, W, width]`."""
        return self._layer("position embedding", self.check_channels(width), grid)

    def class_token(self, width: int, count: int = 1) -> nn.Module:
        """Put learnt tokens before the others: `[B, N, width]` to `[B, count + N, width]`."""
        return self._layer("class token", self.check_channels(width), count)

    def linear(self, in_features: int, out_features: int, *, invariant_only: bool = False) -> nn.Module:
        """Affine map of the channels, `[..., in_features]` to `[..., out_features]`.

        With `invariant_only` the parts of the output that change under the symmetry are not computed
        but None: nothing after this layer uses them. The parameters are the same.
        """
        widths = self.check_channels(in_features), self.check_channels(out_features)
        return self._layer("linear layer", *widths, invariant_only)

    def layer_norm(self, width: int, eps: float) -> nn.Module:
        """Layer norm over the channels of `[..., width]`."""
        return self._layer("layer norm", self.check_channels(width), eps)

    def affine(self, width: int) -> nn.Module:
        """Scale and shift of each channel of `[..., width]`: ResMLP's norm."""
        return self._layer("affine layer", self.check_channels(width))

    def activation(self, kind: Activation = "gelu") -> nn.Module:
        """Pointwise non-linearity: "gelu" is the exact one, "quick_gelu" x·σ(1.702 x)."""
        return self.gelu(kind, self.transform)

    def residual(self, width: int, *, layer_scale: float | None, drop_path: float) -> nn.Module:
        """Module `(x, branch) ↦ x + λ · drop_path(branch)`, λ per channel, 1 if `layer_scale` is None.

        Where a `norm` of this symmetry is its third argument it returns the sum and the norm of the sum;
        `ahead` of its turn, a norm is computed only where that takes no kernel of its own, else it is None.
        """
        return self._layer("residual", self.check_channels(width), layer_scale, drop_path)

    def activated(self, linear: Any, activation: Any, x: Any) -> Any:
        """`activation(linear(x))`, both of this symmetry; in one kernel where there is one for them."""
        replaced = apart(self.layers["linear layer"], linear) or apart(self.gelu, activation)
        if replaced or linear.called_apart():
            return activation(linear(x))
        given = linear.maps, activation.transform, activation.kind
        which = choose(LINEAR_GELU, linear.impl, parts_of(x), *given).name
        if which == "torch":
            return activation(linear(x))
        return together(lambda parts: linear_gelu_parts(parts, *given, which), x)

    def depthwise(self, width: int, kernel_size: int, memory_format: MemoryFormat) -> nn.Module:
        """Depthwise convolution of `[B, H, W, width]`, padded to the same shape.

        `memory_format` is the layout in which the convolution itself runs.
        """
        return self._layer("depthwise convolution", self.check_channels(width), kernel_size, memory_format)

    def downsample(self, width: int, out_width: int) -> nn.Module:
        """2×2 convolution of stride 2, `[B, H, W, width]` to `[B, H/2, W/2, out_width]`."""
        return self._layer("downsampling", self.check_channels(width), self.check_channels(out_width))

    def with_tokens(self, grid: tuple[int, int]) -> "Symmetry":
        """The same symmetry for networks that mix tokens by a linear map: tokens are transformed too."""
        self._lacks("token mixing")

    def split_tokens(self) -> nn.Module:
        """A grid `[B, H, W, C]` to the feature `[B, N, C]` that `token_linear` takes."""
        return self._layer("token order")

    def join_tokens(self, grid: tuple[int, int]) -> nn.Module:
        """The inverse of `split_tokens`: `[B, N, C]` to a grid `[B, H, W, C]` of the symmetry of images."""
        self._lacks("order of tokens on a grid")

    def token_linear(self, grid: tuple[int, int]) -> nn.Module:
        """Affine map of the tokens of a grid (rows, columns), one for all channels: `[B, N, C]` kept."""
        return self._layer("token mixing", grid)

    def invariants(self, x: Any, head: Head) -> Tensor:
        """The invariant channels `[..., invariant_width]` of `[..., C]`, a plain tensor."""
        self._lacks("pointwise invariants")

    def pooled(self, x: Any, head: Head) -> Tensor:
        """The mean of the invariants over all positions: `[B, ..., C]` to `[B, invariant_width]`."""
        self._lacks("pooling")

    def invariant_width(self, width: int, head: Head) -> int:
        """How many invariant channels a feature of `width` has; with absolute values, all of them."""
        return width // self.divisor if head == "invariant" else width

    def change_of_basis(self) -> nn.Module:
        """To an ordinary tensor with the same content, which plain layers continue with: H(X)."""
        return self._layer("change of basis")

    def invariantise(self, width: int, kind: str | None = None) -> nn.Module:
        """To an ordinary tensor of invariants of the same shape, `[..., width]`: I(X).

        `kind` says which, where there are several.
        """
        if kind is not None:
            raise ValueError(f"the symmetry {self.name} has no choice of invariants, got {kind!r}")
        return self._layer("invariantisation")

    def shapes(self, grid: tuple[int, ...], width: int) -> list[tuple[int, ...]]:
        """Those of the parts of one sample's feature: of a grid (rows, columns) or so many tokens."""
        return [(*grid, width)]

    def feature_of(self, parts: Iterable[Tensor]) -> Any:
        """A feature of these parts."""
        (feature,) = parts
        return feature

    def _layer(self, what: str, *arguments: Any) -> nn.Module:
        return self.layers[what](*arguments) if what in self.layers else self._lacks(what)

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

    cost = free


class Dropout(nn.Module):
    """Dropout with an independent mask for each part of a feature.

    A given mask does not commute with the group, its distribution does where the group gives parts signs:
    there the network is equivariant in evaluation, and in distribution while training.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(probability)

    def forward(self, x: Any) -> Any:
        """`[...]` to the same shape."""
        return each(self.drop, x)

    cost = free
