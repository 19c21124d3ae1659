"""What a layer costs by its mathematics, which every layer says of itself: `cost(shapes)`, beside `forward`.

It speaks of what the layer does itself, and of its children where it says so (`whole`). A layer that writes
its forward pass anew has no cost until it has a `cost` of its own, too. Imports no torch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

# Operations an element of what is no multiply-add; the convention is that of `flopbench.flops.elementwise`.
GELU, SIGMOID, LAYER_NORM, SOFTMAX, DIVIDE, ROOT = 8, 4, 5, 5, 4, 4
POINTWISE = {"gelu": GELU, "quick_gelu": SIGMOID + 2}


@dataclass(frozen=True)
class Shapes:
    """Of the tensors that went into a layer and came out, and whether the former need a gradient.

    Attributes:
        inputs: of its arguments, those in features and other structures too.
        outputs: of what it returned.
        input_needs_gradient: whether any of the inputs does.
        runs: how often the forward pass called the layer; the rest is of the last call.
    """

    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    input_needs_gradient: bool = False
    runs: int = 1

    @property
    def read(self) -> int:
        """Elements that went in."""
        return elements(self.inputs)

    @property
    def written(self) -> int:
        """Elements that came out."""
        return elements(self.outputs)

    @property
    def positions(self) -> int:
        """Vectors of channels that went in, B·N."""
        return prod(self.inputs[0][:-1])


@dataclass(frozen=True)
class Cost:
    """Of one layer in one pass.

    Attributes:
        weighted: MACs of products with weights.
        mixing: MACs of products of activations with each other.
        mixing_backward: MACs of their gradients.
        elementwise: elementwise and normalisation operations, forward.
        published: `weighted` as the published networks compute the same map, e.g. with mirrored kernels at
            their full width. None: the same.
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
        """Forward MACs of the published network."""
        return (self.weighted if self.published is None else self.published) + self.mixing


Form = Callable[[Any, Shapes], Cost]
"""From a layer and its shapes to its cost: its method `cost`, or a function of what has no such method."""


def elements(shapes: Iterable[tuple[int, ...]]) -> int:
    """Of tensors of these shapes."""
    return sum(map(prod, shapes))


def per_element(operations: float) -> Form:
    """The form of a layer that does so many operations to each element that comes in, and nothing else."""

    def cost(layer: Any, shapes: Shapes) -> Cost:
        return Cost(elementwise=int(operations * shapes.read))

    return cost


free = per_element(0)
"""The form of a layer whose cost is its children's, or that costs nothing in evaluation mode."""

layer_norm = per_element(LAYER_NORM)
"""The form of an `nn.LayerNorm`."""


def linear(layer: Any, shapes: Shapes) -> Cost:
    """The form of an `nn.Linear`: every vector that comes in meets the matrix."""
    return Cost(shapes.positions * layer.in_features * layer.out_features)


def convolution(layer: Any, shapes: Shapes) -> Cost:
    """The form of an `nn.Conv2d`: each output sums a window of the kernel over the channels of its group."""
    return Cost(shapes.written * (layer.in_channels // layer.groups) * prod(layer.kernel_size))


def gelu_operations(kind: str, signs: tuple[int, ...]) -> int:
    """Operations of a GELU in the transform of n points of these signs, for n elements.

    Each way a point takes a sum for each doubling and a factor, and its sign where it has one.
    """
    return len(signs) * POINTWISE[kind] + 2 * transform_operations(signs)


def transform_operations(signs: tuple[int, ...]) -> int:
    """Operations of the transform of n points of these signs, one way."""
    points = len(signs)
    return points * (points.bit_length() if points > 1 else 0) + sum(sign < 0 for sign in signs)


def layer_norm_operations(inputs: Iterable[tuple[int, ...]], dimensions: Iterable[int]) -> int:
    """Operations of a layer norm of a feature's parts `[..., C_p]` with one deviation.

    Mean, centre, square, mean, times 1/σ, times γ for each channel, and a shift of the first part's. For each
    position variances and ε are summed and divided by the order of the group, and the root's reciprocal is
    taken; the variance of each of an irrep's d rows is divided by d.
    """
    first, *others = inputs
    divided = sum(dimension for dimension in dimensions if dimension > 1)
    position = 1 + len(others) + (1 + divided) * DIVIDE + ROOT
    return 6 * elements((first, *others)) + prod(first) + position * prod(first[:-1])
