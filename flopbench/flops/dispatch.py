"""The second count: torch's FlopCounterMode on the operators that really run, forward and backward.

Beneath it a recorder notes, for each of those operators, which module it belongs to, its elementwise
operations and the elements it reads and writes; in the backward pass a module owns what the gradients of
its own operators run.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from flopbench.cells import Pass
from flopbench.errors import FlopbenchError
from flopbench.flops import operators
from flopbench.flops.meta import evaluating
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


@dataclass(frozen=True)
class Observation:
    """What ran in a pass.

    Attributes:
        macs: FlopCounterMode's total over two, for one multiply-accumulate is two FLOPs.
        calls: every operator, in order.
        kept: storages that outlive the pass: its output, or the gradients.
        uncounted: operator → how often it came, for those neither products nor known to do without.
        shapes: path → shapes of the tensors that went into and came out of the module.
    """

    macs: int
    calls: tuple[Call, ...]
    kept: frozenset[int]
    uncounted: dict[str, int]
    shapes: dict[str, "Shapes"]


@dataclass(frozen=True)
class Shapes:
    """Of the tensors that went into a module and came out, and whether the former need a gradient.

    Attributes:
        runs: how often the module was called; the rest is of the last call.
    """

    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    input_needs_gradient: bool
    runs: int = 1


def observe(model: nn.Module, images: Tensor, pass_: Pass = "forward", dtype_bytes: int = 4) -> Observation:
    """Run a pass of `model`, which costs nothing on the meta device, and note every operator.

    Args:
        model: in any mode; evaluated in evaluation mode, so that dropout is the identity.
        images: `[B, C, H, W]`, on the model's device.
        pass_: `forward`, without gradients; `backward`, the gradients alone; `train`, both (the optimiser's
            step is not among them). Gradients are taken of all outputs that have one, whatever structure
            they come in.
        dtype_bytes: bytes an element of floating point; other types count with their own size.

    Raises:
        FlopbenchError: gradients are asked for, and no output has one.
    """
    recorder = _Recorder(dtype_bytes)
    counter = FlopCounterMode(display=False, custom_mapping=_formulas(model))
    recorder.registry = counter.flop_registry
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(evaluating(model))
        stack.enter_context(_ownership(model, recorder))
        stack.enter_context(FusedAttention())
        stack.enter_context(torch.set_grad_enabled(pass_ != "forward"))
        if pass_ != "backward":
            _record(stack, recorder, counter)
        outputs = tensors(model(images))
        if pass_ == "backward":
            _record(stack, recorder, counter)
        if pass_ != "forward":
            recorder.backward = True
            kept = _gradients(model, outputs)
        else:
            kept = outputs
    return Observation(
        macs=counter.get_total_flops() // 2,
        calls=tuple(recorder.calls),
        kept=frozenset(storage_identity(tensor) for tensor in kept if tensor is not None),
        uncounted=recorder.uncounted,
        shapes=recorder.shapes,
    )


def _record(stack: ExitStack, recorder: TorchDispatchMode, counter: FlopCounterMode) -> None:
    # Entered first, the recorder is beneath: it sees what FlopCounterMode has taken apart.
    stack.enter_context(recorder)
    stack.enter_context(counter)


def _gradients(model: nn.Module, outputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of all trainable weights, by every output that has one to pass on."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        # A network without weights has no gradients to take.
        return ()
    outputs = [output for output in outputs if output.requires_grad]
    seeds = list(map(torch.empty_like, outputs))
    gradients = torch.autograd.grad(outputs, parameters, seeds, allow_unused=True) if outputs else ()
    if all(gradient is None for gradient in gradients):
        raise FlopbenchError("no gradient comes from the outputs to a trainable weight")
    return gradients


class FusedAttention(TorchFunctionMode):
    """Within it, attention without a mask is one operator, as on a GPU; the meta device takes it apart."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, or the fused operator in place of plain scaled-dot-product attention."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            query, key, value = given["query"], given["key"], given["value"]
            special = given.get("attn_mask") is not None or given.get("dropout_p") or given.get("enable_gqa")
            if query.is_meta and query.ndim == 4 and query.shape[-1] == value.shape[-1] and not special:
                causal, scale = bool(given.get("is_causal")), given.get("scale")
                return aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, scale=scale)[
                    0
                ]
        return func(*args, **kwargs)


@dataclass
class _Recorder(TorchDispatchMode):
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
        packet, name = func.overloadpacket, func.overloadpacket.__name__
        read, written = _operands(args, kwargs), [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.alive += read + written
        formula = self.registry.get(packet)
        macs = 0 if formula is None else int(formula(*args, **kwargs, out_val=out)) // 2
        first = read[0].shape if read else None
        elementwise = operators.elementwise(name.rstrip("_"), first, written[0].shape if written else None)
        if name in operators.ATTENTION:
            elementwise = operators.attention_elementwise(read[0].shape, read[1].shape)
        elif name.removesuffix("_backward") in operators.ATTENTION:
            # The gradient of the output comes before q and k.
            elementwise = operators.attention_backward_elementwise(read[1].shape, read[2].shape)
        if name in operators.FUSED:
            elementwise = operators.FUSED[name]([x.shape for x in read], tree_leaves((args, kwargs)))
        moves = not _is_view(func) and name.rstrip("_") not in _ALLOCATING
        if formula is None and elementwise is None and name.rstrip("_") not in operators.FREE:
            self.uncounted[name] = self.uncounted.get(name, 0) + 1
        call = Call(
            module=self._owner(),
            operator=name,
            backward=self.backward,
            macs=macs,
            elementwise=elementwise,
            reads=self._parts(read) if moves and name not in _FILLING else (),
            writes=self._parts(written) if moves else (),
        )
        self.calls.append(call)
        return out

    def _owner(self) -> str:
        if not self.backward:
            return self.stack[-1]
        node = backward_node()
        # The engine adds gradients that meet between nodes: they go to the module whose turn it is.
        self.stack[0] = self.owners.get(node, self.stack[0])
        return self.stack[0]

    def _parts(self, tensors: list[Tensor]) -> tuple[Operand, ...]:
        return tuple({_part(tensor, self.dtype_bytes): None for tensor in tensors})


def _operands(args: Any, kwargs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


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


_ALLOCATING = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})
_FILLING = frozenset(
    {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "zero_", "fill_"}
)


@contextmanager
def _ownership(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Within it, `recorder` knows which module an operator belongs to, forward and backward."""
    handles = []

    def claim(values: Any) -> None:
        """What has been computed up to `values` and has no owner yet belongs to the module at work."""
        nodes = [leaf.grad_fn for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
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
            inputs = _operands(args, kwargs)
            outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            before = recorder.shapes.get(path)
            recorder.shapes[path] = Shapes(
                tuple(tuple(tensor.shape) for tensor in inputs),
                tuple(tuple(tensor.shape) for tensor in outputs),
                any(tensor.requires_grad for tensor in inputs),
                runs=before.runs + 1 if before else 1,
            )
            recorder.stack.pop()

        return hook

    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            # It takes no hooks: what it runs belongs to the module that calls it.
            continue
        handles.append(module.register_forward_pre_hook(looking_on(enter(path)), with_kwargs=True))
        handles.append(module.register_forward_hook(looking_on(leave(path)), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _convolution_backward(grad: Any, source: Any, weight: Any, *rest: Any, out_shape: Any = None) -> int:
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, mask = rest
    # Torch's own formula (2.13) takes a grouped convolution's weight gradient `groups` times.
    return 2 * operators.convolution(weight, source, grad, transposed) * (mask[0] + mask[1])


def _flops(macs: Callable[..., int], first: int = 0) -> Callable[..., int]:
    """Twice the MACs, from the shapes of three arguments, the first of which is the `first`."""
    return lambda *shapes, **_: 2 * macs(*shapes[first : first + 3])


def _formulas(model: nn.Module) -> dict[Any, Callable[..., int]]:
    """`FORMULAS`, and those of our fused products if `model` runs them: they exist once they are imported."""
    if all(getattr(module, "impl", None) != "fused" for module in model.modules()):
        return FORMULAS
    # Without Triton the layers say what is wrong.
    with suppress(ImportError):
        import_module("flopbench.kernels.triton.linear")
        halves = _flops(lambda *shapes: operators.halves(shapes))
        return {**FORMULAS, **{getattr(torch.ops.flopbench, name): halves for name in operators.HALVES}}
    return FORMULAS


_ATTENTION, _ATTENTION_BACKWARD = _flops(operators.attention), _flops(operators.attention_backward, first=1)

# FLOPs, as FlopCounterMode counts, where it has no formula of its own or one that is wrong.
FORMULAS: dict[Any, Callable[..., int]] = {
    aten.convolution_backward: _convolution_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: _ATTENTION,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _ATTENTION_BACKWARD,
    aten._scaled_dot_product_fused_attention_overrideable: _ATTENTION,
    aten._scaled_dot_product_fused_attention_overrideable_backward: _flops(
        operators.attention_backward, first=1
    ),
}
