"""Running a network for its shapes alone: on the meta device, without weights and without arithmetic."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.library import Library
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from flopbench.inputs import Inputs
from flopbench.private import has_meta_kernel


def build_on_meta(name: str, **options: Any) -> nn.Module:
    """`create_model(name, **options)` on the meta device, in evaluation mode: shapes without memory."""
    from flopbench.models import create_model

    with torch.device("meta"):
        return create_model(name, **options).eval()


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of a network on the meta device, made without copying its weights; what shares them still does.

    Raises:
        Exception: whatever refuses to be copied may raise.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        if not is_lazy(parameter):
            memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in model.buffers():
        if not is_lazy(buffer):
            memo[id(buffer)] = buffer.detach().to("meta")
    with torch.device("meta"):
        return copy.deepcopy(model, memo)


def materialised(model: nn.Module) -> nn.Module:
    """The network itself; one with lazy layers as a copy, as these get their shapes from a first call."""
    lazy = any(map(is_lazy, chain(model.parameters(), model.buffers())))
    return copy.deepcopy(model) if lazy else model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode, and afterwards every module in the mode it was in.

    What a mask pads is computed and counted, as it is in training, where torch's transformers could leave it
    out: how much that is depends on values.
    """
    modes = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        yield model
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in modes.items():
            # Asked, not set: some networks keep in evaluation mode what they make of their weights.
            module.train(training)


def initialised(model: nn.Module, inputs: Inputs) -> nn.Module:
    """The model, its lazy layers given their shapes by a first call, which is no part of any count."""
    if any(map(is_lazy, chain(model.parameters(), model.buffers()))):
        with evaluating(model), torch.no_grad():
            inputs.call(model)
    return model


class TracedConvolutions(TorchFunctionMode):
    """Within it, `torch.jit.trace` sees convolutions of meta tensors.

    On the meta device a convolution reaches its shape function without passing the one operator that
    the tracer records, `aten::_convolution`; called directly, it is recorded.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, or the recorded operator in place of a convolution."""
        if func in _CONVOLUTIONS:
            _know_shapes_of_convolutions()
            return _convolution(func in _TRANSPOSED, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d, *_TRANSPOSED)


@cache
def _know_shapes_of_convolutions() -> Library | None:
    """Torch 2.11 has no shape function for what `aten::_convolution` chooses on the meta device."""
    operator = "convolution_overrideable"
    if has_meta_kernel(f"aten::{operator}"):
        return None
    library = Library("aten", "IMPL")
    library.impl(operator, torch.ops.aten.convolution.default, "Meta")
    # It lasts as long as the library does.
    return library


def _convolution(
    transposed: bool, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any
) -> Tensor:
    # In the order of the operators' signatures.
    behind = "output_padding groups dilation" if transposed else "dilation groups"
    given = {**dict(zip(f"stride padding {behind}".split(), rest, strict=False)), **named}
    axes = weight.ndim - 2

    def per_axis(value: int | tuple[int, ...]) -> list[int]:
        values = [value] if isinstance(value, int) else list(value)
        return values * axes if len(values) == 1 else values

    stride, dilation = per_axis(given.get("stride", 1)), per_axis(given.get("dilation", 1))
    padding = given.get("padding", 0)
    if padding == "same":
        extra = [d * (int(k) - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        # Whatever is odd goes behind, axis by axis from the last.
        input = F.pad(input, [side for e in reversed(extra) for side in (e // 2, e - e // 2)])
        padding = 0
    output_padding = per_axis(given.get("output_padding", 0))
    padding = per_axis(0 if padding == "valid" else padding)
    groups = given.get("groups", 1)
    flags = (False, False, False, False)
    return torch.ops.aten._convolution(
        input, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *flags
    )
