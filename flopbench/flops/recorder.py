"""What runs, operator by operator: whose it is, what it computes, the memory that it reads and writes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.cost import Shapes
from flopbench.flops import fused, operators
from flopbench.flops.elementwise import free_names, operations
from flopbench.private import (
    TorchDispatchMode,
    backward_node,
    looking_on,
    schema,
    storage_identity,
    tree_leaves,
)
from flopbench.structures import tensors

aten = torch.ops.aten


@dataclass(frozen=True)
class Operand:
    """A tensor that an operator read or wrote.

    Attributes:
        storage: which memory.
        part: which elements of it; the same for all views of the same elements.
        size: bytes of that part.
        whole: bytes of the memory.
    """

    storage: int
    part: tuple[Any, ...]
    size: int
    whole: int


@dataclass(frozen=True)
class Call:
    """One operator that ran.

    Attributes:
        module: path of the module that it belongs to.
        operator: its name without namespace.
        backward: whether it belongs to the gradients.
        again: whether it does work of the forward pass once more within the backward pass, as checkpointing
            does; `backward` is set, too.
        macs: by FlopCounterMode's formula; 0 for what is no product.
        elementwise: operations, None where the operator is not known.
        reads: tensors read, each part of memory once.
        writes: tensors written; empty for a view.
    """

    module: str
    operator: str
    backward: bool
    macs: int
    elementwise: int | None
    reads: tuple[Operand, ...]
    writes: tuple[Operand, ...]
    again: bool = False


def _shapes(value: Any) -> Any:
    """Tensors, alone or in a list, as their shapes; all else as it is."""
    if isinstance(value, list | tuple):
        return [_shapes(one) for one in value]
    return value.shape if isinstance(value, Tensor) else value


def _operands(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@dataclass
class Recorder(TorchDispatchMode):
    """Notes the operators that run beneath FlopCounterMode, each with the module that owns it."""

    dtype_bytes: int
    registry: dict[Any, Callable[..., int]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    uncounted: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, Shapes] = field(default_factory=dict)
    stack: list[str] = field(default_factory=lambda: [""])
    owners: dict[Any, str] = field(default_factory=dict)
    backward: bool = False
    # Keeps every tensor seen, so that no address of a storage is used twice. They hold no data.
    alive: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        node = backward_node() if self.backward else None
        if node is not None and node.name().endswith("AccumulateGrad"):
            # Gradients are left in their parameters by moving them; it is looking on that has them copied.
            return out
        packet, name = func.overloadpacket, func.overloadpacket.__name__
        read, written = _operands((args, kwargs)), _operands(out)
        self.alive += read + written
        formula = self.registry.get(packet)
        macs = 0 if formula is None else int(formula(*args, **kwargs, out_val=out)) // 2
        first = read[0].shape if read else None
        elementwise = operations(name.rstrip("_"), first, written[0].shape if written else None)
        if name in operators.ATTENTION:
            elementwise = operators.attention_elementwise(read[0].shape, read[1].shape)
        elif name.removesuffix("_backward") in operators.ATTENTION:
            # The gradient of the output comes before q and k.
            elementwise = operators.attention_backward_elementwise(read[1].shape, read[2].shape)
        if func.namespace == "flopbench":
            own = fused.ELEMENTWISE.get(name)
            elementwise = None if own is None else own(*_shapes(args))
        moves = not _is_view(func) and name.rstrip("_") not in _ALLOCATING
        if formula is None and elementwise is None and name.rstrip("_") not in free_names():
            known_as = name if func.namespace in _NAMELESS else f"{func.namespace}::{name}"
            self.uncounted[known_as] = self.uncounted.get(known_as, 0) + 1
        call = Call(
            module=self._owner(node),
            operator=name,
            backward=self.backward,
            macs=macs,
            elementwise=elementwise,
            reads=self._parts(read) if moves and name not in _FILLING else (),
            writes=self._parts(written) if moves else (),
            again=self.backward and len(self.stack) > 1,
        )
        self.calls.append(call)
        return out

    def _owner(self, node: Any) -> str:
        # Within the backward pass, a module at work computes once more what was not kept.
        if not self.backward or len(self.stack) > 1:
            return self.stack[-1]
        # The engine adds gradients that meet between nodes: they go to the module whose turn it is.
        self.stack[0] = self.owners.get(node, self.stack[0])
        return self.stack[0]

    def _parts(self, tensors: list[Tensor]) -> tuple[Operand, ...]:
        return tuple({_part(tensor, self.dtype_bytes): None for tensor in tensors})


def _part(tensor: Tensor, dtype_bytes: int) -> Operand:
    # Innermost axis first; an axis of one element is none, and an expanded one is read once.
    axes = sorted((stride, length) for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    merged: list[tuple[int, int]] = []
    for stride, length in axes:
        if length == 1 or stride == 0:
            continue
        if merged and stride == merged[-1][0] * merged[-1][1]:
            merged[-1] = (merged[-1][0], merged[-1][1] * length)
        else:
            merged.append((stride, length))
    elements = prod(length for _, length in merged) if tensor.numel() else 0
    size = dtype_bytes if tensor.is_floating_point() else tensor.element_size()
    storage = tensor.untyped_storage()
    whole = storage.nbytes() // tensor.element_size() * size
    return Operand(storage_identity(tensor), (tensor.storage_offset(), *merged), elements * size, whole)


def _is_view(func: Any) -> bool:
    """Whether the output is the input's memory, seen otherwise."""
    returns = [value.alias_info for value in schema(func).returns]
    aliased = any(info is not None and not info.is_write for info in returns)
    return aliased or func.overloadpacket in (aten._unsafe_view, aten._reshape_alias)


# Namespaces that go without saying.
_NAMELESS = ("aten", "flopbench", "torchvision")
_ALLOCATING = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})
_FILLING = frozenset(
    {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "zero_", "fill_"}
)


@contextmanager
def ownership(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Within it, `recorder` knows which module an operator belongs to, forward and backward."""
    handles = []

    def claim(values: Any) -> None:
        """What has been computed up to `values` and has no owner yet belongs to the module at work."""
        nodes = [tensor.grad_fn for tensor in tensors(values)]
        while nodes:
            node = nodes.pop()
            if node is not None and node not in recorder.owners:
                recorder.owners[node] = recorder.stack[-1]
                nodes += [parent for parent, _ in node.next_functions]

    def enter(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            claim((args, kwargs))
            recorder.stack.append(path)

        return hook

    def leave(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            claim(output)
            recorder.stack.pop()
            if not recorder.backward:
                inputs, before = tensors((args, kwargs)), recorder.shapes.get(path)
                recorder.shapes[path] = Shapes(
                    tuple(tuple(tensor.shape) for tensor in inputs),
                    tuple(tuple(tensor.shape) for tensor in tensors(output)),
                    any(tensor.requires_grad for tensor in inputs),
                    runs=before.runs + 1 if before else 1,
                )

        return hook

    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            # It takes no hooks: what it runs belongs to the module that calls it.
            continue
        handles.append(module.register_forward_pre_hook(looking_on(enter(path)), with_kwargs=True))
        handles.append(
            module.register_forward_hook(looking_on(leave(path)), with_kwargs=True, always_call=True)
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
