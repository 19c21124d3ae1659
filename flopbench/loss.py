"""What a backward or train pass differentiates."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.inputs import Inputs
from flopbench.models.catalog import GIVEN
from flopbench.models.foreign import load
from flopbench.pairs import Pair
from flopbench.structures import described, part

Loss = Callable[[Any, Inputs], Tensor]
"""Of what a network gives for its inputs; a scalar."""


def loss_of(pair: Pair) -> Loss | None:
    """The loss that a pair states: its function, or the part of the output that it names; None without one.

    Raises:
        FlopbenchError: the function cannot be found. Calls raise it where what comes out is no scalar tensor
            with a gradient, or there is no such part.
    """
    name = pair.loss
    if name is None:
        return None
    function = load(name) if ":" in name else None
    what = "the loss" if name.startswith(f"{GIVEN}:") else f"loss {name!r}"
    what += f" of {pair.spoken}"

    def loss(output: Any, inputs: Inputs) -> Tensor:
        try:
            value = function(output, inputs) if function else part(output, name)
        except LookupError as error:
            if function:
                raise
            raise FlopbenchError(f"{what}: {error.args[0]}") from None
        if not isinstance(value, Tensor) or value.numel() != 1:
            given = described(value)
            raise FlopbenchError(f"{what} is {given}, not a tensor of one number")
        if not value.requires_grad:
            raise FlopbenchError(
                f"{what} has no gradient: nothing that requires one led to it "
                "(frozen, detached, or computed under no_grad)"
            )
        return value

    return loss


def cross_entropy() -> Loss:
    """That of logits `[B, K]`, with label i for image i."""

    @cache
    def labels(rows: int, classes: int, device: torch.device) -> Tensor:
        return torch.arange(rows, device=device) % classes

    def loss(output: Any, inputs: Inputs) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 2:
            raise FlopbenchError(
                f"a training step needs logits [B, K], the network gives {described(output)}: "
                "state a loss, or measure forward and backward"
            )
        return F.cross_entropy(output.float(), labels(*output.shape, output.device))

    return loss
