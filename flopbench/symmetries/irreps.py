"""The layers of any finite group whose features are multiples of its regular representation.

Every irrep of dimension d is in that d times, so of C channels its d rows have C·d/|G| each, |G| = Σ d². A
feature has a part per row. By Schur's lemma a linear map that commutes with the group takes no irrep to
another, and acts on all rows of one alike: a matrix per irrep. Only the trivial irrep, the first, can be
shifted. Source for mirroring: *Flopping for FLOPs* (arXiv:2502.05169), section 3; for mirroring and quarter
turns: *Octic Vision Transformers* (arXiv:2505.15441).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import prod
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from flopbench.cost import Cost, Shapes, elements, free, layer_norm_operations
from flopbench.kernels import Impl
from flopbench.kernels.cache import DerivedCache
from flopbench.kernels.depthwise import depthwise
from flopbench.kernels.dispatch import Choice, choose, note
from flopbench.kernels.layer_norm import (
    ADD_LAYER_NORM,
    add_layer_norm_parts,
    irreps_of_parts,
    layer_norm_parts,
)
from flopbench.kernels.linear import LINEAR, Maps, linear_parts
from flopbench.kernels.residual import add_scaled
from flopbench.symmetries.base import DropPath, MemoryFormat, Symmetry, apart, like
from flopbench.symmetries.folding import Absorbs, Centres, Foldable, Folded, scale_rows
from flopbench.symmetries.generators import Generator, orbits


class Irrep(NamedTuple):
    """An irreducible representation: what its parameters are called, and its dimension d."""

    name: str
    dimension: int = 1


class Rows(NamedTuple):
    """Which irreps a feature's parts are rows of.

    Attributes:
        irreps: those of the group; the trivial one first.
        of: the irrep of each part, whose weights it shares.
        invariant: the parts that the group leaves as they are.
    """

    irreps: tuple[Irrep, ...]
    of: tuple[int, ...]
    invariant: tuple[int, ...] = (0,)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """d of each irrep."""
        return tuple(irrep.dimension for irrep in self.irreps)

    def widths(self, channels: int) -> list[int]:
        """Channels of a row of each irrep, of so many in all."""
        order = sum(d * d for d in self.dimensions)
        return [channels * d // order for d in self.dimensions]

    def parameters(self, owner: nn.Module, name: str) -> list[Any]:
        """Those of a layer that are called so, one per irrep."""
        return [getattr(owner, f"{name}_{irrep.name}") for irrep in self.irreps]


def regular(*irreps: Irrep) -> Rows:
    """The rows of all irreps, each as often as its dimension says."""
    return Rows(irreps, irreps_of_parts([irrep.dimension for irrep in irreps]))


class IrrepLinear(nn.Module):
    """x_p ↦ W x_p, one W per irrep: Σ d³ / |G|² of the MACs of a dense map, summed over the irreps.

    A bias is on what is invariant. It has a child per irrep, called as that is.
    """

    impl: Impl = "auto"

    def __init__(self, rows: Rows, in_features: int, out_features: int, invariant_only: bool) -> None:
        super().__init__()
        self.rows = rows
        self.invariant_only = invariant_only
        shifted = {rows.of[part] for part in rows.invariant}
        widths = zip(rows.irreps, rows.widths(in_features), rows.widths(out_features), strict=True)
        for index, (irrep, inner, outer) in enumerate(widths):
            self.add_module(irrep.name, nn.Linear(inner, outer, bias=index in shifted))

    def forward(self, x: Any) -> Any:
        """`[..., in_features]` to `[..., out_features]`; with `invariant_only`, None for other parts."""
        parts = self.rows.invariant if self.invariant_only else range(len(self.rows.of))
        if self.called_apart():
            outputs = {part: self._alone(part, x[part]) for part in parts}
        elif not self.invariant_only:
            return like(x, linear_parts(x, self.maps, self.impl))
        else:
            maps = _restricted(self.maps, parts)
            given = [x[part] for part in parts]
            outputs = dict(zip(parts, linear_parts(given, maps, self.impl), strict=True))
        return like(x, (outputs.get(part) for part in range(len(self.rows.of))))

    def _alone(self, part: int, x: Tensor) -> Tensor:
        layer = self._layers[self.rows.of[part]]
        shifted = part in self.rows.invariant or getattr(layer, "bias", None) is None
        return layer(x) if shifted else without_shift(layer, x)

    @property
    def _layers(self) -> list[nn.Linear]:
        return [getattr(self, irrep.name) for irrep in self.rows.irreps]

    @property
    def maps(self) -> Maps:
        """What it does to each part."""
        layers, of = self._layers, self.rows.of
        biases = [layers[i].bias if part in self.rows.invariant else None for part, i in enumerate(of)]
        return Maps([layer.weight for layer in layers], of, biases)

    def called_apart(self) -> bool:
        """Whether its children are to be called as the modules that they are."""
        why = apart(nn.Linear, *self._layers)
        if why:
            note(LINEAR, Choice("torch", why))
        return bool(why)

    def cost(self, shapes: Shapes) -> Cost:
        """Every part meets its matrix; those are children, which this covers."""
        weights, of, _ = self.maps
        parts = self.rows.invariant if self.invariant_only else range(len(of))
        products = (prod(shapes.inputs[part][:-1]) * weights[of[part]].numel() for part in parts)
        return Cost(sum(products), whole=True)


def _restricted(maps: Maps, parts: Sequence[int]) -> Maps:
    """Those of some parts, with no weight that is for none of them."""
    used = sorted({maps.of[part] for part in parts})
    of = tuple(used.index(maps.of[part]) for part in parts)
    return Maps([maps.weights[index] for index in used], of, [maps.biases[part] for part in parts])


def without_shift(layer: nn.Module, x: Tensor) -> Tensor:
    """W x of an affine map W x + b, whatever module that is."""
    return layer(x) - layer(torch.zeros_like(x))


class IrrepLayerNorm(nn.Module, Centres):
    """Layer norm with one deviation for all parts: γ of each irrep, a shift on the invariant part only."""

    impl: Impl = "auto"

    def __init__(self, rows: Rows, width: int, eps: float) -> None:
        super().__init__()
        self.rows, self.width, self.eps = rows, width, eps
        widths = rows.widths(width)
        for irrep, channels in zip(rows.irreps, widths, strict=True):
            self.register_parameter(f"weight_{irrep.name}", nn.Parameter(torch.ones(channels)))
        self.bias = nn.Parameter(torch.zeros(widths[0]))

    def forward(self, x: Any) -> Any:
        """`[..., C]` to the same shape."""
        given = self.affine, self.eps, self.rows.dimensions, self.impl
        return like(x, layer_norm_parts(x, *given, centred=self.centred))

    @property
    def affine(self) -> list[Tensor]:
        """γ of each irrep, and β."""
        return [*self.rows.parameters(self, "weight"), self.bias]

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return f"{self.width}, eps={self.eps}"

    def cost(self, shapes: Shapes) -> Cost:
        """The norm's operations."""
        return Cost(elementwise=layer_norm_operations(shapes.inputs, self.rows.dimensions))


class IrrepResidual(nn.Module, Absorbs):
    """x + λ · drop_path(branch), λ of each irrep, one mask for all parts."""

    impl: Impl = "auto"

    def __init__(self, rows: Rows, width: int, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        self.rows = rows
        for irrep, channels in zip(rows.irreps, rows.widths(width), strict=True):
            gamma = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))
            self.register_parameter(f"gamma_{irrep.name}", gamma)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Any, branch: Any, norm: Any = None, *, ahead: bool = False) -> Any:
        """`[..., C]` and `[..., C]` to `[..., C]`; with a `norm`, to that and its norm."""
        branch = self.drop_path(branch)
        gammas = self.rows.parameters(self, "gamma")
        scales = [] if gammas[0] is None else gammas
        if norm is not None and self._with(norm, (*x, *branch), scales):
            given = norm.affine, norm.eps, norm.rows.dimensions
            both = add_layer_norm_parts(x, branch, scales, *given, self.impl, centred=norm.centred)
            return like(x, both[: len(x)]), like(x, both[len(x) :])
        x = like(x, self._sums(x, branch, gammas))
        return x if norm is None else (x, None if ahead else norm(x))

    def absorbs(self, branch: nn.Module) -> bool:
        """Of an `IrrepLinear` whose children nobody looks into."""
        return type(branch) is IrrepLinear and not apart(nn.Linear, *branch.children())

    def absorb(self, branch: IrrepLinear, *, centre: bool) -> None:
        """λ goes into the weights of each irrep."""
        for irrep, gamma in zip(self.rows.irreps, self.rows.parameters(self, "gamma"), strict=True):
            scale_rows(getattr(branch, irrep.name), gamma, centre=centre)
            self.register_parameter(f"gamma_{irrep.name}", None)

    def _sums(self, x: Any, branch: Any, gammas: list[Tensor | None]) -> Iterable[Tensor | None]:
        for part, more, of in zip(x, branch, self.rows.of, strict=True):
            # What the branch lacks the sum lacks.
            yield None if more is None else add_scaled(part, more, gammas[of])

    def _with(self, norm: Any, parts: Sequence[Tensor], scales: Sequence[Tensor]) -> bool:
        """Whether one kernel adds and normalises."""
        if apart(IrrepLayerNorm, norm):
            return False
        return choose(ADD_LAYER_NORM, self.impl, parts, (*scales, *norm.affine)).name != "torch"

    def cost(self, shapes: Shapes) -> Cost:
        """A sum per element, and a factor; the sums come first, and their norm is another layer."""
        scaled = any(True for _ in self.parameters())
        return Cost(elementwise=(1 + scaled) * elements(shapes.outputs[: len(self.rows.of)]))


class IrrepClassToken(nn.Module):
    """Learnt invariant tokens: a class token, and registers after it.

    Their other parts are zero, for where they lie nothing moves them.
    """

    def __init__(self, rows: Rows, width: int, count: int, deviation: float) -> None:
        super().__init__()
        self.rows, self.count = rows, count
        weight = nn.Parameter(torch.empty(1, count, rows.widths(width)[0]))
        nn.init.trunc_normal_(weight, std=deviation)
        self.register_parameter(f"weight_{rows.irreps[0].name}", weight)

    def forward(self, x: Any) -> Any:
        """`[B, N, C]` to `[B, count + N, C]`."""
        (weight,) = self.parameters()
        first, *others = x
        token = weight.expand(first.shape[0], -1, -1).to(first.dtype)
        zeros = (part.new_zeros(part.shape[0], self.count, part.shape[2]) for part in others)
        padded = (torch.cat(pair, dim=1) for pair in zip(zeros, others, strict=True))
        return like(x, (torch.cat([token, first], dim=1), *padded))

    cost = free


class IrrepDepthwise(nn.Module, Foldable):
    """Depthwise convolution by kernels that the group leaves as they are: they take no part to another.

    A kernel has one value for each orbit of its cells, so that it is the same however the image is moved, and
    all rows of an irrep share it. Those are not all maps that commute with the group, but such as every group
    has; a bias is on what is invariant.
    """

    impl: Impl = "auto"

    def __init__(
        self,
        rows: Rows,
        generators: Sequence[Generator],
        width: int,
        kernel_size: int,
        memory_format: MemoryFormat,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"a depthwise convolution needs a kernel of odd size, got {kernel_size}")
        self.rows, self.width, self.kernel_size = rows, width, kernel_size
        self.contiguous = memory_format == "contiguous"
        self.orbits = orbits(generators, kernel_size)
        widths, free_values = rows.widths(width), 1 + max(map(max, self.orbits))
        for irrep, channels in zip(rows.irreps, widths, strict=True):
            weight = nn.Parameter(torch.empty(channels, 1, free_values))
            nn.init.trunc_normal_(weight, std=0.02)
            self.register_parameter(f"weight_{irrep.name}", weight)
        self.bias = nn.Parameter(torch.zeros(widths[rows.of[rows.invariant[0]]]))
        self._kernels = DerivedCache()

    def forward(self, x: Any) -> Any:
        """`[B, H, W, C]` to the same shape."""
        kernels = self._build() if self.training else self._kernels.get(self._build, *self.parameters())
        return self._function(x, self.bias, *kernels)

    def folded(self) -> Folded:
        """The same for inference alone, with the whole kernels for weights."""
        return Folded(self._function, self.bias, *self._build())

    def train(self, mode: bool = True) -> Self:
        """Also drops the kernels that were kept for inference."""
        self._kernels.clear()
        return super().train(mode)

    @property
    def _function(self) -> Callable[..., Any]:
        return partial(_depthwise_by_irrep, self.rows, self.contiguous, self.impl)

    def _build(self) -> tuple[Tensor, ...]:
        """The kernel of each irrep."""
        return tuple(self._kernel(weight) for weight in self.rows.parameters(self, "weight"))

    def _kernel(self, weight: Tensor) -> Tensor:
        """`[C_p, 1, orbits]` to `[C_p, 1, K, K]`; of slices, for an index would live on some device."""
        values = weight.unbind(-1)
        return torch.stack([torch.stack([values[cell] for cell in row], -1) for row in self.orbits], -2)

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return f"{self.width}, kernel_size={self.kernel_size}"

    def cost(self, shapes: Shapes) -> Cost:
        """A kernel per channel, as without symmetry."""
        return Cost(shapes.written * self.kernel_size**2)


def _depthwise_by_irrep(
    rows: Rows, contiguous: bool, impl: Impl, x: Any, bias: Tensor, *kernels: Tensor
) -> Any:
    """Each part of `[B, H, W, C]` convolved with its irrep's kernel."""
    biases = (bias if part in rows.invariant else None for part in range(len(rows.of)))
    own = zip(x, (kernels[irrep] for irrep in rows.of), biases, strict=True)
    return like(x, (depthwise(*one, contiguous=contiguous, impl=impl) for one in own))


class Group(Symmetry):
    """A symmetry whose features are made of the rows of its group's irreps."""

    rows: ClassVar[Rows]
    """Which irreps the parts of its features are rows of."""
    class_token_deviation: ClassVar[float] = 0.02
    """With which a class token is drawn."""
    layers: ClassVar[dict[str, type[nn.Module]]] = {"linear layer": IrrepLinear}

    def linear(self, in_features: int, out_features: int, *, invariant_only: bool = False) -> nn.Module:
        """A matrix per irrep."""
        widths = self.check_channels(in_features), self.check_channels(out_features)
        return IrrepLinear(self.rows, *widths, invariant_only)

    def layer_norm(self, width: int, eps: float) -> nn.Module:
        """One deviation for all parts."""
        return IrrepLayerNorm(self.rows, self.check_channels(width), eps)

    def residual(self, width: int, *, layer_scale: float | None, drop_path: float) -> nn.Module:
        """A scale per irrep."""
        return IrrepResidual(self.rows, self.check_channels(width), layer_scale, drop_path)

    def depthwise(self, width: int, kernel_size: int, memory_format: MemoryFormat) -> nn.Module:
        """The symmetry's own; else by kernels that every group has, where its features lie on the grid."""
        own = "depthwise convolution" in self.layers
        if own or not all(generator.on_grid for generator in self.generators):
            return super().depthwise(width, kernel_size, memory_format)
        given = self.check_channels(width), kernel_size, memory_format
        return IrrepDepthwise(self.rows, self.generators, *given)

    def class_token(self, width: int, count: int = 1) -> nn.Module:
        """Learnt where they are invariant."""
        return IrrepClassToken(self.rows, self.check_channels(width), count, self.class_token_deviation)

    def shapes(self, grid: tuple[int, ...], width: int) -> list[tuple[int, ...]]:
        """Every part lies on the whole grid."""
        widths = self.rows.widths(width)
        return [(*grid, widths[of]) for of in self.rows.of]

    def feature_of(self, parts: Iterable[Tensor]) -> Any:
        """The NamedTuple of these parts."""
        return self.feature(*parts)
