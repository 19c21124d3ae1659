"""FLOPs of operators, as FlopCounterMode counts them, where it has no formula or one that is wrong."""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import nn

from flopbench.flops import operators

aten = torch.ops.aten


def _convolution_backward(grad: Any, source: Any, weight: Any, *rest: Any, out_shape: Any = None) -> int:
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, mask = rest
    # Torch's own formula (2.13) takes a grouped convolution's weight gradient `groups` times.
    return 2 * operators.convolution(weight, source, grad, transposed) * (mask[0] + mask[1])


def _flops(macs: Callable[..., int], first: int = 0) -> Callable[..., int]:
    """Twice the MACs, from the shapes of three arguments, the first of which is the `first`."""
    return lambda *shapes, **_: 2 * macs(*shapes[first : first + 3])


def formulas_for(model: nn.Module) -> dict[Any, Callable[..., int]]:
    """`FORMULAS`, and those of our fused products if `model` runs them: they exist once they are imported."""
    if all(getattr(module, "impl", None) not in ("fused", "triton") for module in model.modules()):
        return FORMULAS
    # Without Triton the layers say what is wrong.
    with suppress(ImportError):
        for operation in ("linear", "attention"):
            import_module(f"flopbench.kernels.triton.{operation}")
        ours = {getattr(torch.ops.flopbench, name): _ours(macs) for name, macs in operators.OURS.items()}
        return {**FORMULAS, **ours}
    return FORMULAS


def _ours(macs: Callable[[Any], int]) -> Callable[..., int]:
    """Twice the MACs, from the shapes of all tensors, those in lists too."""

    def flops(*shapes: Any, **_: Any) -> int:
        lists = (s if isinstance(s, list) else [s] for s in shapes if isinstance(s, list | torch.Size))
        return 2 * macs(list(chain.from_iterable(lists)))

    return flops


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


_ATTENTION, _ATTENTION_BACKWARD = _flops(operators.attention), _flops(operators.attention_backward, first=1)

FORMULAS: dict[Any, Callable[..., int]] = {
    aten.convolution_backward: _convolution_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: _ATTENTION,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _ATTENTION_BACKWARD,
    aten._scaled_dot_product_fused_attention_overrideable: _ATTENTION,
    aten._scaled_dot_product_fused_attention_overrideable_backward: _flops(
        operators.attention_backward, first=1
    ),
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
