"""FLOPs of operators, as FlopCounterMode counts them, where it has no formula or one that is wrong."""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import nn

from flopbench.flops import fused, operators

aten = torch.ops.aten


def _convolution_backward(grad: Any, source: Any, weight: Any, *rest: Any, out_shape: Any = None) -> int:
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, mask = rest
    # Torch's own formula (2.13) takes a grouped convolution's weight gradient `groups` times.
    return 2 * operators.convolution(weight, source, grad, transposed) * (mask[0] + mask[1])


def _flops(macs: Callable[..., int], chosen: slice = slice(None)) -> Callable[..., int]:
    """Twice the MACs, from the shapes of the chosen arguments."""
    return lambda *shapes, **_: 2 * macs(*shapes[chosen])


def formulas_for(model: nn.Module) -> dict[Any, Callable[..., int]]:
    """`FORMULAS`, and those of our own products where `model` may run some: they exist once imported."""
    if not any(_runs_ours(module) for module in model.modules()):
        return FORMULAS
    for operation in ("attention", "depthwise", "linear"):
        import_module(f"flopbench.kernels.cpp.{operation}")
    # Without Triton the layers say what is wrong.
    with suppress(ImportError):
        for operation in ("attention", "linear"):
            import_module(f"flopbench.kernels.triton.{operation}")
    ours = {name: macs for name, macs in fused.MACS.items() if hasattr(torch.ops.flopbench, name)}
    return {**FORMULAS, **{getattr(torch.ops.flopbench, name): _flops(macs) for name, macs in ours.items()}}


def _runs_ours(layer: nn.Module) -> bool:
    """Whether it may run one of flopbench's kernels uncompiled."""
    impl = getattr(layer, "impl", None)
    return impl in ("fused", "cpp", "triton") or (
        impl == "auto" and any(p.is_cuda for p in layer.parameters())
    )


def _contraction(*shapes: Any, out_shape: Any = None) -> int:
    return 2 * operators.contraction(shapes[0], out_shape)


def _recurrent_layer(source: Any, *weights: Any, **_: Any) -> int:
    # Weights of the input and of the state; the biases that follow have an axis less.
    return 2 * operators.recurrent(source, weights[:2])


def _recurrent_layer_backward(source: Any, *weights: Any, **_: Any) -> int:
    # It computes the gradients of the input, the state and both weights, wanted or not.
    return 2 * _recurrent_layer(source, *weights)


def _recurrent_layers(source: Any, weights: Any, *_: Any, **__: Any) -> int:
    return 2 * operators.recurrent(source, weights)


_ATTENTION, _ATTENTION_BACKWARD = (
    _flops(operators.attention, slice(3)),
    _flops(operators.attention_backward, slice(1, 4)),
)

FORMULAS: dict[Any, Callable[..., int]] = {
    aten.convolution_backward: _convolution_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: _ATTENTION,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _ATTENTION_BACKWARD,
    aten._scaled_dot_product_fused_attention_overrideable: _ATTENTION,
    aten._scaled_dot_product_fused_attention_overrideable_backward: _ATTENTION_BACKWARD,
    aten.mv: _contraction,
    aten.dot: _contraction,
    aten.vdot: _contraction,
    aten.addmv: lambda added, *shapes, **_: _contraction(*shapes, out_shape=shapes[0][:-1]),
    aten.addbmm: lambda added, left, right, **_: 2 * prod(left) * right[-1],
    # An LSTM on a CPU, a layer and a direction per call.
    aten.mkldnn_rnn_layer: _recurrent_layer,
    aten.mkldnn_rnn_layer_backward: _recurrent_layer_backward,
    # Any recurrent layer on CUDA, all its layers and directions in a call.
    aten._cudnn_rnn: _recurrent_layers,
    aten._cudnn_rnn_backward: lambda *shapes, **_: 2 * _recurrent_layers(*shapes),
}
