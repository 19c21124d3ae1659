"""The second count: torch's FlopCounterMode on the operators that really run, forward and backward.

Beneath it a recorder notes, for each of those operators, which module it belongs to, its elementwise
operations and the elements it reads and writes; in the backward pass a module owns what the gradients of
its own operators run.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from flopbench.cost import Shapes
from flopbench.errors import FlopbenchError
from flopbench.flops.formulas import formulas_for
from flopbench.flops.meta import evaluating
from flopbench.flops.recorder import Call, Recorder, ownership
from flopbench.inputs import Inputs
from flopbench.loss import Loss
from flopbench.models.layers import Network
from flopbench.models.single import SingleLayer
from flopbench.modes import Pass
from flopbench.private import TorchDispatchMode, storage_identity
from flopbench.structures import tensors

aten = torch.ops.aten


@dataclass(frozen=True)
class Observation:
    """What ran in a pass.

    Attributes:
        macs: FlopCounterMode's total over two, for one multiply-accumulate is two FLOPs.
        calls: every operator, in order.
        kept: storages that outlive the pass: its output, or the gradients.
        uncounted: operator → how often it came, for those neither products nor known to do without.
        shapes: path → shapes of the tensors that went into and came out of the module.
        unreached: of a pass with gradients, names of the parameters that require one and were given none.
        training: whether the network ran in training mode.
    """

    macs: int
    calls: tuple[Call, ...]
    kept: frozenset[int]
    uncounted: dict[str, int]
    shapes: dict[str, Shapes]
    unreached: tuple[str, ...] = ()
    training: bool = False


def observe(
    model: nn.Module,
    inputs: Inputs,
    pass_: Pass = "forward",
    dtype_bytes: int = 4,
    loss: Loss | None = None,
) -> Observation:
    """Run a pass of `model`, which costs nothing on the meta device, and note every operator.

    The network is in evaluation mode, so that dropout is the identity. Where gradients do not reach all
    parameters there, for some networks keep the kernels that they make of them, and reach more in training
    mode, what ran in training mode is returned instead.

    Args:
        model: in any mode, which is left as it was, as buffers and gradients are.
        inputs: what it is called with, on its device.
        pass_: `forward`, without gradients; `backward`, the gradients alone; `train`, both (the optimiser's
            step is not among them). Gradients are taken of all outputs that have one, whatever structure
            they come in.
        dtype_bytes: bytes per element of floating point; other types count with their own size.
        loss: what is differentiated instead; what it computes is the network's own work.

    Raises:
        FlopbenchError: gradients are asked for, and none reaches a trainable weight.
    """
    try:
        observation = _observe(model, inputs, pass_, dtype_bytes, loss, training=False)
    except Exception:
        if loss is None or pass_ == "forward":
            raise
        # Detectors have their losses in training mode alone.
        return _observe(model, inputs, pass_, dtype_bytes, loss, training=True)
    trainable = sum(parameter.requires_grad for parameter in model.parameters())
    # Gradients reach the same weights of our own networks in either mode: what they do not reach is idle.
    if observation.unreached and not isinstance(model, Network | SingleLayer):
        # Batch norm refuses to be trained on a single value per channel, other networks lack their targets.
        with suppress(Exception):
            trained = _observe(model, inputs, pass_, dtype_bytes, loss, training=True)
            if len(trained.unreached) < len(observation.unreached):
                return trained
    if trainable and len(observation.unreached) == trainable:
        raise FlopbenchError("no gradient comes from the outputs to a trainable weight")
    return observation


def _observe(
    model: nn.Module, inputs: Inputs, pass_: Pass, dtype_bytes: int, loss: Loss | None, *, training: bool
) -> Observation:
    recorder = Recorder(dtype_bytes)
    counter = FlopCounterMode(display=False, custom_mapping=formulas_for(model))
    counter.mod_tracker = _Untracked()
    recorder.registry = counter.flop_registry
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if "torch._dynamo" in sys.modules:
            # A compiled graph shows its operators to nobody. Nothing is compiled where nothing is loaded.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(evaluating(model))
        if training:
            stack.enter_context(unchanged(list(model.buffers())))
            model.train()
        stack.enter_context(ownership(model, recorder))
        stack.enter_context(FusedAttention())
        stack.enter_context(torch.set_grad_enabled(pass_ != "forward"))
        gradients = stack.enter_context(_arriving(model))
        if pass_ != "backward":
            _record(stack, recorder, counter)
        output = inputs.call(model)
        outputs = tensors(output if loss is None or pass_ == "forward" else loss(output, inputs))
        if pass_ == "backward":
            _record(stack, recorder, counter)
        if pass_ != "forward":
            recorder.backward = True
            outputs = [tensor for tensor in outputs if tensor.requires_grad]
            if outputs:
                torch.autograd.backward(outputs, [torch.empty_like(tensor) for tensor in outputs])
    needing = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    kept = outputs if pass_ == "forward" else chain.from_iterable(gradients.values())
    return Observation(
        macs=counter.get_total_flops() // 2,
        calls=tuple(recorder.calls),
        kept=frozenset(map(storage_identity, kept)),
        uncounted=recorder.uncounted,
        shapes=recorder.shapes,
        unreached=() if pass_ == "forward" else tuple(name for name in needing if name not in gradients),
        training=training,
    )


@contextmanager
def _arriving(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Within it, parameters have no gradients; those that arrive are noted under the parameters' names."""
    arrived: dict[str, list[Tensor]] = {}
    handles = []
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    for name, parameter in model.named_parameters():
        parameter.grad = None
        if parameter.requires_grad:
            note = partial(_note, arrived, name)
            handles.append(parameter.register_hook(note))
    try:
        yield arrived
    finally:
        for handle in handles:
            handle.remove()
        for parameter, grad in before:
            parameter.grad = grad


def _note(arrived: dict[str, list[Tensor]], name: str, gradient: Tensor | None) -> None:
    # Of an operator that has no gradient nothing arrives, and the hook is called all the same.
    if gradient is not None:
        arrived.setdefault(name, []).append(gradient)


@contextmanager
def unchanged(buffers: list[Tensor]) -> Iterator[None]:
    """Within it, training may write into some buffers, such as running means; then they are as before."""
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


class _Untracked(ModuleTracker):
    """In place of FlopCounterMode's own tracker of modules, which takes a weight for an argument amiss."""

    def __enter__(self) -> "_Untracked":
        """Watch no module: the recorder does."""
        return self

    def __exit__(self, *args: Any) -> None:
        """Nothing has been watched."""


def _record(stack: ExitStack, recorder: TorchDispatchMode, counter: FlopCounterMode) -> None:
    # Entered first, the recorder is beneath: it sees what FlopCounterMode has taken apart.
    stack.enter_context(recorder)
    stack.enter_context(counter)


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
