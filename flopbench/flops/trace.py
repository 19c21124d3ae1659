"""The first count: fvcore on the traced graph, with handles for every operator our layers use.

fvcore counts a fused attention as nothing, a `matmul` with a broadcast left factor without its batch, and
adds its normalisation estimates to the MACs. The handles here mend the three.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.flops import fused, operators
from flopbench.flops.elementwise import elementwise_names, free_names, operations
from flopbench.flops.meta import TracedConvolutions, evaluating
from flopbench.inputs import Inputs
from flopbench.private import looking_on
from flopbench.structures import tensors

# Importing fvcore compiles something with torch.jit.script, which newer torch calls deprecated.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

Handle = Callable[[list[Any], list[Any]], Counter[str]]


@dataclass(frozen=True)
class ForwardCount:
    """What fvcore counted in one forward pass of a batch.

    Attributes:
        macs: multiply-accumulates of matrix products and convolutions.
        uncounted: operator → how often it came, for operators that have no handle and are not known to do
            without products. Empty: the count is complete.
        by_operator: operator → MACs.
        by_module: module's path → MACs, its children's included; `""` is the network.
        elementwise: operator → elementwise and normalisation operations (no part of `macs`).
        coverage: share of the operators met that have a rule here, views and copies left out.
    """

    macs: int
    uncounted: dict[str, int]
    by_operator: dict[str, int] = field(default_factory=dict)
    by_module: dict[str, int] = field(default_factory=dict)
    elementwise: dict[str, int] = field(default_factory=dict)
    coverage: float = 1.0


def count_forward(model: nn.Module, inputs: Inputs) -> ForwardCount:
    """Count the MACs of a forward pass in evaluation mode by fvcore, fused attention included.

    A model on the meta device costs neither memory nor arithmetic (`with torch.device("meta"):
    create_model(...)`); a model on another device is run there once. The model's mode is left as it was.

    Args:
        model: any network.
        inputs: what it is called with, on its device; the count is for the whole batch.
    """
    traced = _distinct(inputs)
    analysis = FlopCountAnalysis(model, tuple(traced)).clear_op_handles().set_op_handle(**_handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    # Tracing warns of constants in the graph and, on newer torch, of its own deprecation.
    with (
        warnings.catch_warnings(),
        evaluating(model),
        torch.no_grad(),
        TracedConvolutions(),
        _flat(model, inputs, traced),
    ):
        warnings.simplefilter("ignore")
        by_module = analysis.by_module_and_operator()
    # An autograd.Function goes by the name of its class.
    uncounted = {
        name.removeprefix("aten::").removeprefix("prim::PythonOp."): count
        for name, count in analysis.unsupported_ops().items()
    }
    known, unknown = int(by_module[""].pop(_KNOWN, 0)), sum(uncounted.values())
    return ForwardCount(
        macs=_macs(by_module[""]),
        uncounted=uncounted,
        by_operator={name: int(n) for name, n in by_module[""].items() if not name.startswith(_APART)},
        by_module={path: _macs(counts) for path, counts in by_module.items()},
        elementwise={
            name.removeprefix(_APART): int(n) for name, n in by_module[""].items() if name.startswith(_APART)
        },
        coverage=known / (known + unknown) if known + unknown else 1.0,
    )


@contextmanager
def _flat(model: nn.Module, inputs: Inputs, traced: list[Tensor]) -> Iterator[None]:
    """Within it, the network takes its arguments' tensors alone, one by one, and gives a tuple of tensors.

    A trace takes nothing else. What is no tensor among the arguments is as in `inputs`.
    """

    def unflatten(module: nn.Module, args: Any, kwargs: Any) -> Any:
        given = dict(zip(map(id, traced), args, strict=True))
        whole = inputs.map(lambda tensor: given[id(tensor)])
        return whole.args, whole.kwargs

    def flatten(module: nn.Module, args: Any, output: Any) -> Any:
        return None if isinstance(output, Tensor) else tuple(tensors(output))

    # What the network computes is the same with them.
    model = _within(model)
    handles = [
        model.register_forward_pre_hook(looking_on(unflatten), prepend=True, with_kwargs=True),
        model.register_forward_hook(looking_on(flatten)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _within(model: nn.Module) -> nn.Module:
    """The network itself, where a wrapper spreads it over devices: fvcore traces what is in it."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else model


def _distinct(inputs: Inputs) -> list[Tensor]:
    """The tensors that `inputs.map` comes by, each once."""
    found: dict[int, Tensor] = {}
    inputs.map(lambda tensor: found.setdefault(id(tensor), tensor))
    return list(found.values())


# fvcore sums what a handle returns; a prefix keeps apart from MACs what is none.
_APART = "elementwise:"
_KNOWN = "known operators"


def _macs(counts: Counter[str]) -> int:
    return sum(int(n) for name, n in counts.items() if name != _KNOWN and not name.startswith(_APART))


def _handles() -> dict[str, Handle | None]:
    handles: dict[str, Handle | None] = {
        "aten::_convolution": _convolution,
        "aten::einsum": _einsum,
    }
    for name in operators.PRODUCTS:
        handles[f"aten::{name}"] = _product(name)
    for name in operators.RECURRENT:
        handles[f"aten::{name}"] = _recurrent(name)
    for name in elementwise_names():
        handles |= dict.fromkeys(
            (f"aten::{name}", f"aten::{name}_", f"torchvision::{name}"), _elementwise(name)
        )
    for name in free_names():
        handles[f"aten::{name}_"] = None
        handles |= {f"{space}::{name}": None for space in ("aten", "flopbench", "profiler")}
    for name in fused.MACS.keys() | fused.ELEMENTWISE.keys():
        handles[f"flopbench::{name}"] = _fused(name)
    return handles


def _shapes(values: list[Any]) -> list[list[int]]:
    """Of the tensors among the values, those in lists too."""
    lists = [v.node().inputs() if v.node().kind() == "prim::ListConstruct" else [v] for v in values]
    return [shape for v in chain.from_iterable(lists) if (shape := get_shape(v)) is not None]


def _product(name: str) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        shapes = _shapes(inputs)
        count = Counter({_KNOWN: 1, name: operators.PRODUCTS[name](shapes, get_shape(outputs[0]) or [])})
        if name in operators.ATTENTION:
            count[_APART + name] = operators.attention_elementwise(*shapes[:2])
        return count

    return handle


def _fused(name: str) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        arguments = [_argument(value) for value in inputs]
        count = Counter({_KNOWN: 1})
        if name in fused.MACS:
            count[name] = fused.MACS[name](*arguments)
        if name in fused.ELEMENTWISE:
            count[_APART + name] = fused.ELEMENTWISE[name](*arguments)
        return count

    return handle


def _argument(value: Any) -> Any:
    """What an operator was given, with a shape in the place of a tensor."""
    if value.node().kind() == "prim::ListConstruct":
        return [_argument(one) for one in value.node().inputs()]
    shape = get_shape(value)
    return value.toIValue() if shape is None else shape


def _elementwise(name: str) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        read, written = _shapes(inputs[:1]), _shapes(outputs[:1])
        # A scalar or boolean operand has no shape, and no work worth a count.
        count = operations(name, read[0] if read else None, written[0] if written else None)
        return Counter({_KNOWN: 1, _APART + name: count or 0})

    return handle


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    source, weight, out = _shapes([*inputs[:2], outputs[0]])
    macs = operators.convolution(weight, source, out, bool(inputs[6].toIValue()))
    return Counter({_KNOWN: 1, "convolution": macs})


def _einsum(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    # The path, there on newer torch, is a list of operands of three factors and more, else None.
    path = inputs[2].toIValue() if len(inputs) > 2 else None
    macs, elementwise = operators.einsum(inputs[0].toIValue(), _shapes([inputs[1]]), path or ())
    return Counter({_KNOWN: 1, "einsum": macs, _APART + "einsum": elementwise})


def _recurrent(name: str) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        source, *others = _shapes(inputs)
        if name.endswith("_cell"):
            states, weights = _shapes(inputs[1:2]), _shapes(inputs[2:4])
        else:
            states, weights = ([s for s in others if len(s) == axes] for axes in (3, 2))
        # Of all layers and directions; an LSTM's cell, the last of its states, is as wide as its gates.
        width = prod(states[-1]) // states[-1][-2]
        elementwise = operators.RECURRENT[name] * prod(source[:-1]) * width
        return Counter({_KNOWN: 1, name: operators.recurrent(source, weights), _APART + name: elementwise})

    return handle
