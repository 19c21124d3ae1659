"""Counting what is given from Python: names, networks, functions, and what they are called with."""

import math
from functools import partial
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from flopbench.cells import Pair, complaint
from flopbench.errors import FlopbenchError, brief
from flopbench.flops.command import Counts, Request, count, names_of
from flopbench.models import foreign
from flopbench.models.catalog import GIVEN, parse_name


def count_given(network: Any, inputs: Any, *, baseline: Any = None, loss: Any = None, **how: Any) -> Counts:
    """See `flopbench.count_flops`; `how` are further fields of `Request`."""
    objects: dict[str, Any] = {}
    names = _names(network, baseline, objects)
    if inputs is not None and not isinstance(inputs, str):
        if isinstance(inputs, nn.Module | type):
            raise FlopbenchError("inputs is a network: give what the network is called with")
        objects["inputs"], inputs = inputs, f"{GIVEN}:inputs"
    if loss is not None and not isinstance(loss, str):
        if not callable(loss):
            raise FlopbenchError(f"loss is {brief(loss)}: give a function, or a part's name")
        objects["loss"], loss = loss, f"{GIVEN}:loss"
    # What is given is counted as it is: nothing of its inputs is cast.
    cast = not any(parse_name(name).given for name in names)
    try:
        pair = Pair(baseline=names[0], candidate=names[-1], cast=cast, inputs=inputs, loss=loss)
    except ValidationError as error:
        raise FlopbenchError(complaint(error)) from None
    request = Request(pair, **how)
    if not objects and any(parse_name(name).spec is None for name in names):
        return _apart(request)
    foreign.put(objects)
    try:
        return count(request)
    finally:
        foreign.put({})


def _names(network: Any, baseline: Any, objects: dict[str, Any]) -> tuple[str, ...]:
    if baseline is None and isinstance(network, str):
        return names_of(network)
    given = {"network": network} if baseline is None else {"baseline": baseline, "network": network}
    return tuple(_name(role, one, objects) for role, one in given.items())


def _name(role: str, network: Any, objects: dict[str, Any]) -> str:
    if isinstance(network, str):
        return parse_name(network).raw
    if isinstance(network, type):
        name = network.__name__
        raise FlopbenchError(f"{role} is the class {name}: give an instance of it, {name}(...)")
    if isinstance(network, Tensor) or not callable(network):
        raise FlopbenchError(
            f"{role} is of type {type(network).__name__}: give a torch.nn.Module, a function, or a name"
        )
    name = _title(network)
    if name in objects or name in ("inputs", "loss"):
        name = f"{name} ({role})"
    objects[name] = network
    return f"{GIVEN}:{name}"


def _title(network: Any) -> str:
    """What a network is called: its class, or the function's name."""
    if isinstance(network, partial):
        return _title(network.func)
    if isinstance(network, nn.Module):
        return type(getattr(network, "_orig_mod", network)).__name__
    name = getattr(network, "__name__", type(network).__name__)
    return "function" if name == "<lambda>" else name


def _apart(request: Request) -> Counts:
    """Counted in a process of its own, which somebody else's network may end or print in as it likes."""
    from flopbench.runner.process import run_job

    outcome = run_job("flopbench.flops.command:count_in_worker", request, timeout=math.inf, echo=True)
    if outcome.kind == "done":
        return outcome.value
    names = " and ".join(request.names)
    what = outcome.value if outcome.kind == "usage" else f"cannot count {names}: {outcome.value}"
    raise FlopbenchError(what)
