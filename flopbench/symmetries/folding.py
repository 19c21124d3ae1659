"""Weights that layers compute from those learnt, computed once for all calls: for inference alone."""

from torch import nn

from flopbench.symmetries.base import apart


class Foldable:
    """A layer that computes weights from its weights in every call, or in every one that is compiled."""

    def folded(self) -> nn.Module:
        """What gives the same and has the computed weights instead: it may be the layer itself, changed."""
        raise NotImplementedError


def fold(model: nn.Module) -> None:
    """Let every layer of `model` that can hold the weights that it computes with, in place.

    What was learnt is gone: the model can neither be trained nor loaded into any more. That is what makes it
    safe: nothing is left that a kept weight could be out of date with. A compiler finds plain weights.
    Layers with hooks, or with a forward of their own, stay as they are.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Foldable) and not apart(type(layer), layer):
                setattr(parent, name, layer.folded())
