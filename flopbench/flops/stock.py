"""What fvcore and FlopCounterMode say without our handles: the differences that the audit explains."""

import warnings
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flopbench.flops import operators
from flopbench.flops.dispatch import FusedAttention, observe
from flopbench.flops.meta import TracedConvolutions, evaluating
from flopbench.flops.trace import FlopCountAnalysis, count_forward
from flopbench.inputs import Inputs


@dataclass(frozen=True)
class Stock:
    """Counts of the libraries as they come, beside ours.

    Attributes:
        fvcore: its total of the forward pass.
        fvcore_without_rule: product → how often fvcore met it and counted nothing.
        macs: ours of the forward pass.
        backward: FlopCounterMode's total of the gradients, over two.
        backward_macs: ours.
    """

    fvcore: int
    fvcore_without_rule: dict[str, int]
    macs: int
    backward: int
    backward_macs: int


def stock_counts(model: nn.Module, inputs: Inputs) -> Stock:
    """Count a network of positional tensors and one output by both libraries, without our handles."""
    analysis = FlopCountAnalysis(model, inputs.args)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings(), evaluating(model), torch.no_grad(), TracedConvolutions():
        warnings.simplefilter("ignore")
        traced = int(analysis.total())
    without = {
        name.removeprefix("aten::"): count
        for name, count in analysis.unsupported_ops().items()
        if name.removeprefix("aten::") in operators.PRODUCTS
    }
    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings(), evaluating(model), FusedAttention():
        warnings.simplefilter("ignore")
        output = inputs.call(model)
        with counter:
            torch.autograd.grad(output, list(model.parameters()), torch.empty_like(output), allow_unused=True)
    return Stock(
        fvcore=traced,
        fvcore_without_rule=without,
        macs=count_forward(model, inputs).macs,
        backward=counter.get_total_flops() // 2,
        backward_macs=observe(model, inputs, "backward").macs,
    )
