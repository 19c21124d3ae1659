"""Weights that layers compute from those learnt, computed once for all calls: for inference alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.symmetries.base import apart


class Foldable:
    """A layer that computes weights from its weights in every call, or in every one that is compiled."""

    def folded(self) -> nn.Module:
        """What gives the same and has the computed weights instead: it may be the layer itself, changed."""
        raise NotImplementedError


class FoldsBranches:
    """A network that can move what it does to its residual branches into the weights of these."""

    def fold_branches(self) -> None:
        """Move it, in place; not where somebody looks into the network, or its layers are others."""
        raise NotImplementedError


class Absorbs:
    """A residual sum whose scale can go into the last layer of its branch."""

    def absorbs(self, branch: nn.Module) -> bool:
        """Whether it can: that layer is as its symmetry made it."""
        raise NotImplementedError

    def absorb(self, branch: Any, *, centre: bool) -> None:
        """Move the scale, and with `centre` let the branch give mean 0 in each part."""
        raise NotImplementedError


class Centres:
    """A norm that centres each part, which is to no purpose where parts have mean 0 already."""

    centred = False
    """Whether they have."""


class Folded(nn.Module):
    """A layer for inference alone: a function of its inputs and of weights that were computed once."""

    def __init__(self, function: Callable[..., Any], *weights: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(x.detach(), requires_grad=False) for x in weights)

    def forward(self, *inputs: Any) -> Any:
        """What the layer gives that it was made of."""
        # One by one: the compiler of torch 2.11 cannot unpack the list.
        return self.function(*inputs, *(self.weights[i] for i in range(len(self.weights))))


def fold(model: nn.Module, *, branches: bool = True) -> None:
    """Let every layer of `model` that can hold the weights that it computes with, in place.

    With `branches` a network moves what it does to its residual branches into their weights, too; not where
    products are in fp16, for which scaled weights may be too small. What another network contains keeps it,
    for that may read what lies between.

    What was learnt is gone: the model can neither be trained nor loaded into any more. That is what makes it
    safe: nothing is left that a kept weight could be out of date with. A compiler finds plain weights.
    Layers with hooks, or with a forward of their own, stay as they are.
    """
    if branches and isinstance(model, FoldsBranches):
        model.fold_branches()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Foldable) and not apart(type(layer), layer):
                setattr(parent, name, layer.folded())


@torch.no_grad()
def scale_rows(layer: nn.Linear, gamma: Tensor | None, *, centre: bool) -> None:
    """Let an affine map give γ times as much, `[out]`, and with `centre` that less its mean.

    It gets weights of its own: others that it may have shared stay as they are.
    """
    for name, weight in list(layer.named_parameters()):
        scaled = weight if gamma is None else weight * gamma.view(-1, *[1] * (weight.dim() - 1))
        folded = scaled - scaled.mean(dim=0) if centre else scaled.clone()
        layer.register_parameter(name, nn.Parameter(folded, requires_grad=False))
