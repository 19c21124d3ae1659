"""The third count: each layer's cost from its mathematics, by the layer's type and the shapes it is given.

Nothing here looks at operators. A layer's form covers its children where it says so (`whole`), else only
what the layer does itself. Source of the equivariant layers: *Flopping for FLOPs*, sections 3 and 4.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from flopbench.cost import Shapes
from flopbench.models import convnext, resmlp, vit
from flopbench.models.layers import Attention, Mlp
from flopbench.private import hooked
from flopbench.symmetries import base, flop, flop_tokens, irreps, plain

# Operations an element of what is no multiply-add; the convention is that of `operators`.
GELU, SIGMOID, LAYER_NORM, SOFTMAX, DIVIDE, ROOT = 8, 4, 5, 5, 4, 4
POINTWISE = {"gelu": GELU, "quick_gelu": SIGMOID + 2}


@dataclass(frozen=True)
class Cost:
    """Of one layer in one pass.

    Attributes:
        weighted: MACs of products with weights.
        mixing: MACs of products of activations with each other.
        mixing_backward: MACs of their gradients.
        elementwise: elementwise and normalisation operations, forward.
        published: `weighted` as the paper's networks compute the same map, with mirrored kernels at their
            full width. None: the same.
        whole: the children are included.
    """

    weighted: int = 0
    mixing: int = 0
    mixing_backward: int = 0
    elementwise: int = 0
    published: int | None = None
    whole: bool = False

    def macs(self, *, forward: bool, backward: bool, input_gradient: bool, weight_gradient: bool) -> int:
        """MACs in a pass. Each gradient of a product with weights costs as much as the product.

        The gradient of the input is not taken in the first layer, that of frozen weights neither.
        """
        gradients = input_gradient + weight_gradient if backward else 0
        mixing = forward * self.mixing + (backward and input_gradient) * self.mixing_backward
        return (forward + gradients) * self.weighted + mixing

    @property
    def as_published(self) -> int:
        """Forward MACs of the paper's network."""
        return (self.weighted if self.published is None else self.published) + self.mixing


Form = Callable[[Any, Shapes], Cost]
FORMS: dict[type[nn.Module], Form] = {}

# What some layers do to each element that comes in, and nothing else.
PER_ELEMENT: dict[type[nn.Module], float] = {
    nn.BatchNorm2d: 2,
    nn.GELU: GELU,
    nn.LayerNorm: LAYER_NORM,
    nn.ReLU: 1,
    plain.Affine: 2,
    flop.FlopInvariantise: 1 / 2,
    flop_tokens.InvariantiseTokens: 1 / 2,
    # A sum or a difference and a factor, to mirror pairs of channels or of tokens; to both: twice.
    flop.FlopToPlain: 2,
    flop_tokens.SplitTokens: 2,
    flop_tokens.JoinTokens: 4,
    # What these cost is their children's. Or nothing at all, in evaluation mode.
    **dict.fromkeys((nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Flatten, nn.Dropout), 0),
    **dict.fromkeys((base.DropPath, base.Dropout, plain.PatchEmbed, plain.ClassToken, plain.Flatten), 0),
    **dict.fromkeys((irreps.IrrepClassToken, Mlp, vit.Block, vit.VisionTransformer, resmlp.Block), 0),
    **dict.fromkeys((convnext.Block, convnext.Downsample, convnext.Stage), 0),
}


def form_of(module: nn.Module) -> Form | None:
    """The form of a layer's type; None where there is none.

    A type that derives from one with a form may do more than it. Of ours, none does that has no form itself.
    """
    ours = type(module).__module__.startswith("flopbench.")
    for kind in type(module).__mro__ if ours else (type(module),):
        if kind in FORMS:
            return FORMS[kind]
        if kind in PER_ELEMENT:
            return lambda module, shapes: Cost(elementwise=int(PER_ELEMENT[kind] * _elements(shapes.inputs)))
    return None


def _strangeness(module: nn.Module, shapes: Shapes) -> str:
    """Why a layer does not do what its type does, once; "" if it does."""
    if "forward" in vars(module):
        return " with a forward pass of its own"
    if hooked(module):
        return " with hooks"
    if any(isinstance(child, torch.jit.ScriptModule) for child in module.children()):
        # Which takes no hooks: what it runs counts as its owner's.
        return " with a scripted part"
    # What costs nothing by itself does so however often it is called.
    again = shapes.runs > 1 and PER_ELEMENT.get(type(module)) != 0
    return f" called {shapes.runs} times" if again else ""


def closed_form(
    model: nn.Module, shapes: Mapping[str, Shapes]
) -> tuple[dict[str, Cost], dict[str, list[str]]]:
    """The cost of every layer that has a form, and the layers that have none.

    A form speaks of layers that ran once, as their type does: not of those that are called again, patched
    or hooked.

    Args:
        model: its modules give types, sizes and weights.
        shapes: path → what went into and came out of it (`dispatch.observe`).

    Returns:
        Path → cost; name of a type without a form, or what is special about the layer → its paths.
    """
    costs: dict[str, Cost] = {}
    unknown: dict[str, list[str]] = {}
    covered: set[str] = set()
    if isinstance(model, torch.jit.ScriptModule):
        return costs, {"a scripted network": [""]}
    for path, module in model.named_modules():
        if path not in shapes or path.rpartition(".")[0] in covered:
            # Never called, or part of a layer that is covered whole.
            covered |= {path} if path.rpartition(".")[0] in covered else set()
            continue
        form, strange = form_of(module), _strangeness(module, shapes[path])
        if form is None or strange:
            kind = type(module)
            unknown.setdefault(f"{kind.__module__}.{kind.__qualname__}{strange}", []).append(path)
            continue
        costs[path] = form(module, shapes[path])
        if costs[path].whole:
            covered.add(path)
    return costs, unknown


def _form(*kinds: type[nn.Module]) -> Callable[[Form], Form]:
    def register(form: Form) -> Form:
        FORMS.update(dict.fromkeys(kinds, form))
        return form

    return register


def _elements(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(map(prod, shapes))


def _positions(shapes: Shapes) -> int:
    """Vectors of channels that come in, as B·N."""
    return prod(shapes.inputs[0][:-1])


# Ordinary layers.


@_form(nn.Linear)
def _linear(layer: nn.Linear, shapes: Shapes) -> Cost:
    return Cost(_positions(shapes) * layer.in_features * layer.out_features)


@_form(plain.TokenLinear)
def _token_linear(layer: nn.Linear, shapes: Shapes) -> Cost:
    batch, _, channels = shapes.inputs[0]
    return Cost(batch * channels * layer.in_features * layer.out_features)


@_form(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(layer: nn.Conv2d, shapes: Shapes) -> Cost:
    # Each output sums a window of the kernel's size over the channels of its group.
    return Cost(_elements(shapes.outputs) * (layer.in_channels // layer.groups) * prod(layer.kernel_size))


@_form(base.Gelu)
def _gelu_of_parts(layer: base.Gelu, shapes: Shapes) -> Cost:
    # Of n points a sum for each doubling, and a factor, each way.
    points = len(layer.transform.order)
    transforms = 2 * (points.bit_length() if points > 1 else 0)
    return Cost(elementwise=(POINTWISE[layer.kind] + transforms) * _elements(shapes.inputs))


@_form(plain.PositionEmbedding, flop.FlopPositionEmbedding)
def _position_embedding(layer: nn.Module, shapes: Shapes) -> Cost:
    return Cost(elementwise=_elements(shapes.outputs))


@_form(plain.Residual, irreps.IrrepResidual)
def _residual(layer: nn.Module, shapes: Shapes) -> Cost:
    # The sums come first; what else comes out is their norm, which is another layer.
    sums = len(layer.rows.of) if isinstance(layer, irreps.IrrepResidual) else 1
    scaled = any(True for _ in layer.parameters())
    return Cost(elementwise=(1 + scaled) * _elements(shapes.outputs[:sums]))


def _patch_size(layer: Any) -> int:
    return layer.patch_size if isinstance(layer, flop.FlopPatchEmbed) else layer.proj.kernel_size[0]


@_form(resmlp.ResMLP, convnext.ConvNeXt)
def _mean_over_the_grid(network: Any, shapes: Shapes) -> Cost:
    # Its own work: the mean in front of the head, over the invariant channels of what the last block gives.
    batch, _, height, width = shapes.inputs[0]
    stride = _patch_size(network.patch_embed) * 2 ** (len(getattr(network, "stages", (None,))) - 1)
    return Cost(elementwise=batch * (height // stride) * (width // stride) * network.head.in_features)


@_form(Attention)
def _attention(layer: Attention, shapes: Shapes) -> Cost:
    """q kᵀ and its product with v, whatever the symmetry: irreps lie side by side within a head."""
    batch, tokens, _ = shapes.inputs[0]
    channels = sum(shape[-1] for shape in shapes.inputs)
    product = batch * tokens * tokens * channels
    scores = batch * layer.heads * tokens * tokens
    # A gradient of each factor of each product; a fused kernel computes the scores again before.
    backward = 4 * product + (product if layer.fused else 0)
    return Cost(
        mixing=2 * product,
        mixing_backward=backward,
        elementwise=batch * tokens * channels + SOFTMAX * scores,
    )


# Flopping.


@_form(flop.FlopPatchEmbed)
def _flop_patch_embed(layer: flop.FlopPatchEmbed, shapes: Shapes) -> Cost:
    P, (_, colours, *_) = layer.patch_size, shapes.inputs[0]
    s, a = map(prod, shapes.outputs)
    rows = colours * P
    folded = s * rows * (P - P // 2) + a * rows * (P // 2)
    # Folding: a sum and a difference for every pair of mirrored pixels.
    fold = prod(shapes.inputs[0]) * 2 * (P // 2) // P
    return Cost(folded, elementwise=fold, published=(s + a) * rows * P)


@_form(irreps.IrrepLinear)
def _irrep_linear(layer: irreps.IrrepLinear, shapes: Shapes) -> Cost:
    maps = layer.maps
    parts = layer.rows.invariant if layer.invariant_only else range(len(maps.of))
    products = (prod(shapes.inputs[part][:-1]) * maps.weights[maps.of[part]].numel() for part in parts)
    return Cost(sum(products), whole=True)


@_form(irreps.IrrepLayerNorm)
def _irrep_layer_norm(layer: irreps.IrrepLayerNorm, shapes: Shapes) -> Cost:
    # Mean, centre, square, mean, times 1/σ, times γ for each channel; a shift for the first part's.
    # For each position the variances and ε are summed, divided, and the root's reciprocal taken; those of an
    # irrep's rows are averaged.
    dimensions, of = layer.rows.dimensions, layer.rows.of
    averaged = sum(dimensions[irrep] > 1 for irrep in of)
    position = len(of) + (1 + averaged) * DIVIDE + ROOT
    shifted = prod(shapes.inputs[0])
    return Cost(elementwise=6 * _elements(shapes.inputs) + shifted + position * _positions(shapes))


@_form(flop.FlopDepthwise)
def _flop_depthwise(layer: flop.FlopDepthwise, shapes: Shapes) -> Cost:
    """A kernel a channel, as without symmetry: mirroring ties weights and saves no product."""
    return Cost(_elements(shapes.outputs) * layer.kernel_size**2)


@_form(flop.FlopDownsample)
def _flop_downsample(layer: flop.FlopDownsample, shapes: Shapes) -> Cost:
    # Each output meets all channels of two rows of folded columns; unfolded, of two rows and two columns.
    channels = sum(shape[-1] for shape in shapes.inputs)
    folded = _elements(shapes.outputs) * 2 * channels
    return Cost(folded, elementwise=_elements(shapes.inputs), published=2 * folded)


# Flopping with transformed tokens: four quarters [B, n, C/2].


@_form(flop_tokens.FlopTokensMixing)
def _flop_tokens_mixing(layer: nn.Module, shapes: Shapes) -> Cost:
    # Each irrep's tokens meet those of the same irrep.
    return Cost(sum(prod(shape) * shape[1] for shape in shapes.inputs), whole=True)


@_form(flop_tokens.FlopTokensAffine)
def _flop_tokens_affine(layer: nn.Module, shapes: Shapes) -> Cost:
    # A factor for all, a shift for what is invariant.
    return Cost(elementwise=_elements(shapes.inputs) + prod(shapes.inputs[0]) + prod(shapes.inputs[3]))
