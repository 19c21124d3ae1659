"""Work in the caller's own process that leaves it as it was: its networks, and the process's own state."""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from inspect import getclosurevars
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flopbench.inputs import Inputs
from flopbench.private import storage_identity


@contextmanager
def as_it_was(objects: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Within, work on objects as a fresh process would; afterwards they and the process are as before.

    Networks, also those that functions hold, work on copies of their weights and buffers, and get back
    their own: values, dtype, device, gradients, mode and attributes. Of the process: random numbers, threads,
    precision, cuDNN's and autograd's switches. Only what `torch.compile` has compiled is dropped, before and
    after: it is compiled again when it is called next.

    Yields:
        The objects by name, inputs copied.
    """
    with ExitStack() as stack:
        for enter in (_same_switches, _same_random_numbers):
            stack.enter_context(enter())
        stack.enter_context(_on_copies(networks_of(objects.values())))
        # As a process begins.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        torch._dynamo.reset()
        try:
            yield {name: _copied(one) for name, one in objects.items()}
        finally:
            torch._dynamo.reset()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()


def _copied(one: Any) -> Any:
    """Inputs of their own for each job, for a network may write into them."""
    if not isinstance(one, Inputs):
        return one
    return one.map(lambda x: x.detach().clone().requires_grad_(x.requires_grad))


def networks_of(objects: Iterable[Any]) -> list[nn.Module]:
    """All modules among objects, those within modules and those that functions and methods hold too."""
    found: list[nn.Module] = []
    waiting, seen = list(objects), dict[int, Any]()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            # Kept, so that no other object gets its identity meanwhile.
            seen[id(one)] = one
            found += [one] if isinstance(one, nn.Module) else []
            waiting += (part for _, part in parts_of(one))
    return found


def parts_of(one: Any) -> list[tuple[str, Any]]:
    """What an object holds, each with a name: attributes, items, of functions what they close over.

    Modules of Python, classes and tensors hold nothing.
    """
    if isinstance(one, type | ModuleType | Tensor | str | bytes | int | float):
        return []
    if isinstance(one, Mapping):
        return [(str(key), value) for key, value in one.items()]
    if isinstance(one, list | tuple | set | frozenset):
        return [(str(index), value) for index, value in enumerate(one)]
    if isinstance(one, FunctionType):
        closed, usual = getclosurevars(one), one.__defaults__ or ()
        return [*closed.nonlocals.items(), *closed.globals.items(), *parts_of(usual)]
    if isinstance(one, MethodType):
        return [("__self__", one.__self__), ("__func__", one.__func__)]
    if isinstance(one, partial):
        return [("func", one.func), *parts_of(one.args), *one.keywords.items()]
    held = dict(getattr(one, "__dict__", {}))
    if isinstance(one, nn.Module):
        # By their own names; a scripted module holds them elsewhere.
        held.pop("_modules", None)
        held |= dict(one.named_children())
    return list(held.items())


@contextmanager
def _on_copies(networks: list[nn.Module]) -> Iterator[None]:
    """Within, modules have copies of their weights and buffers; then their own, and their attributes."""
    modules = [(module, type(module), module.training, _shallow(vars(module))) for module in networks]
    held = {id(x): x for module in networks for x in _tensors(module)}
    tensors = [(x, x.data, x.grad, x.requires_grad) for x in held.values()]
    copies: dict[int, Any] = {}
    try:
        for tensor, data, _, _ in tensors:
            tensor.grad = None
            tensor.data = _copy(data, copies)
        yield
    finally:
        for module, kind, training, attributes in modules:
            # A module that had no weights before its first call was of another class.
            if type(module) is not kind:
                module.__class__ = kind
            vars(module).clear()
            vars(module).update(attributes)
            module.training = training
        for tensor, data, gradient, requires_grad in tensors:
            tensor.grad = None
            tensor.data = data
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            tensor.grad = gradient


def _tensors(module: nn.Module) -> list[Tensor]:
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values()]
    return [x for x in own if isinstance(x, Tensor) and not is_lazy(x)]


def _shallow(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a module; its tables of weights, parts and hooks as they are now."""
    return {
        name: value.copy() if type(value) in (dict, OrderedDict) else value
        for name, value in attributes.items()
    }


def _copy(data: Tensor, copies: dict[int, Any]) -> Tensor:
    """A copy of a tensor; what shares memory shares it in the copies, as recurrent layers need it."""
    if data.layout is not torch.strided or data.is_nested or data.is_quantized or type(data) is not Tensor:
        return data.clone()
    shared = storage_identity(data)
    if shared not in copies:
        copies[shared] = data.untyped_storage().clone()
    return torch.empty(0, dtype=data.dtype, device=data.device).set_(
        copies[shared], data.storage_offset(), data.size(), data.stride()
    )


@contextmanager
def _same_switches() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    switches: list[tuple[Callable[..., Any], Any]] = [
        (torch.set_num_threads, torch.get_num_threads()),
        (torch.set_default_dtype, torch.get_default_dtype()),
        (partial(setattr, cudnn, "benchmark"), cudnn.benchmark),
        (partial(setattr, cudnn, "deterministic"), cudnn.deterministic),
        (partial(setattr, cudnn, "enabled"), cudnn.enabled),
        (
            partial(
                torch.use_deterministic_algorithms,
                warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            torch.are_deterministic_algorithms_enabled(),
        ),
    ]
    # torch refuses to say where a caller mixes its old and its new switches.
    with suppress(RuntimeError):
        switches.append((torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()))
    with suppress(RuntimeError):
        switches.append((partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32))
    try:
        yield
    finally:
        for switch, value in switches:
            switch(value)


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    own, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(of_numpy)
