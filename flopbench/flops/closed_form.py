"""The third count: each layer's cost from its mathematics, by what the layer says and the shapes it is given.

Nothing here looks at operators. Layers say what they cost themselves (`flopbench.cost`), somebody else's own
too; here is what they cannot say, for torch's modules.
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import nn

from flopbench.cost import GELU, Cost, Form, Shapes, convolution, free, layer_norm, linear, per_element
from flopbench.private import hooked

FORMS: dict[type[nn.Module], Form] = {
    nn.Linear: linear,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    nn.BatchNorm2d: per_element(2),
    nn.GELU: per_element(GELU),
    nn.LayerNorm: layer_norm,
    nn.ReLU: per_element(1),
    **dict.fromkeys((nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Flatten, nn.Dropout), free),
}
"""Of torch's modules. A type that derives from one of them may do more than it."""


def form_of(module: nn.Module) -> Form | None:
    """The form of a layer's type; None where there is none.

    A `cost` speaks of the forward pass of the class that has it, and of those that derive from that and have
    neither of their own.
    """
    kind = type(module)
    if kind in FORMS:
        return FORMS[kind]
    for ancestor in kind.__mro__:
        own: Any = vars(ancestor).get("cost")
        if own is not None:
            return own if _is_form(own) else None
        if "forward" in vars(ancestor):
            return None
    return None


def _is_form(own: Any) -> bool:
    """Whether it is a method `cost(self, shapes)`: somebody's network may mean another thing by the name."""
    return callable(own) and list(signature(own).parameters)[1:] == ["shapes"]


def _strangeness(module: nn.Module) -> str:
    """Why a layer does not do what its type does; "" if it does."""
    if "forward" in vars(module):
        return " with a forward pass of its own"
    if hooked(module):
        return " with hooks"
    if any(isinstance(child, torch.jit.ScriptModule) for child in module.children()):
        # Which takes no hooks: what it runs counts as its owner's.
        return " with a scripted part"
    return ""


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
        form, strange = form_of(module), _strangeness(module)
        cost = None if form is None or strange else form(module, shapes[path])
        # What costs nothing by itself does so however often it is called.
        if cost and cost != Cost() and shapes[path].runs > 1:
            strange = f" called {shapes[path].runs} times"
        if cost is None or strange:
            kind = type(module)
            unknown.setdefault(f"{kind.__module__}.{kind.__qualname__}{strange}", []).append(path)
            continue
        costs[path] = cost
        if cost.whole:
            covered.add(path)
    return costs, unknown
