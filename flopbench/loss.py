"""What a backward or train pass differentiates."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.inputs import Inputs
from flopbench.models.catalog import GIVEN
from flopbench.models.foreign import load
from flopbench.models.tasks import TaskName
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


@dataclass(frozen=True)
class Supervision:
    """What a task is trained with where a pair states no loss.

    Attributes:
        takes: the shapes of outputs that it is for, in words.
        axes: how many axes they have.
        target: from the shape of an output and a device to what it is held to: fixed, and cheap to hold.
        loss: of an output in fp32 and its target, a scalar.
    """

    takes: str
    axes: tuple[int, ...]
    target: Callable[[torch.Size, torch.device], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits `[B, K]` or `[B, K, H, W]` and labels `[B]` or `[B, H, W]`.

    Logits `[B, K]` may be held to shares of all classes `[B, K]`, too.
    """
    if logits.ndim == 4 and logits.is_contiguous(memory_format=torch.channels_last):
        # As heads give them. Torch's operator would copy them to planes, in which their gradient came back.
        logits, labels = logits.permute(0, 2, 3, 1).flatten(0, 2), labels.flatten()
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def log_depth_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean |difference| of logarithms of depths `[B, 1, H, W]`, of any shapes that broadcast."""
    return (output - target).abs().mean()


def cosine_distance(output: Tensor, target: Tensor) -> Tensor:
    """Mean 1 − cos of the angle between vectors `[B, 3, H, W]`, of any shapes that broadcast."""
    return 1 - F.cosine_similarity(output, target, dim=1).mean()


def _labels(shape: torch.Size, device: torch.device) -> Tensor:
    """Class after class, from image to image and from pixel to pixel: `[B]` or `[B, H, W]`, all there are."""
    rows, classes, *pixels = shape
    first = torch.arange(rows, device=device).view(-1, *(1 for _ in pixels))
    return (first + torch.arange(prod(pixels), device=device).view(pixels)) % classes


def _slope(shape: torch.Size, device: torch.device) -> Tensor:
    """`[H, 1]`, from top to bottom: a floor that comes nearer."""
    return torch.linspace(1, 0, shape[-2], device=device)[:, None]


def _dome(shape: torch.Size, device: torch.device) -> Tensor:
    """Unit vectors `[1, 3, H, W]` of a hill in the middle of the image."""
    y, x = (torch.linspace(-1, 1, side, device=device) for side in shape[-2:])
    planes = torch.broadcast_tensors(x, y[:, None], torch.ones((), device=device))
    return F.normalize(torch.stack(planes), dim=0)[None]


_OF_CLASSES = Supervision("logits [B, K] or [B, K, H, W]", (2, 4), _labels, cross_entropy)

SUPERVISED: dict[TaskName, Supervision] = {
    "classification": _OF_CLASSES,
    "segmentation": _OF_CLASSES,
    "depth": Supervision("logarithms of depths [B, 1, H, W]", (4,), _slope, log_depth_error),
    "normals": Supervision("vectors [B, 3, H, W]", (4,), _dome, cosine_distance),
}
"""By task. Features by themselves are held to nothing."""


def task_loss(task: TaskName) -> Loss:
    """That of a task's outputs with a fixed target, in fp32 whatever their dtype.

    A network of somebody's own has no task: logits of images `[B, K]` and of pixels `[B, K, H, W]` are told
    apart by their shapes.

    Raises:
        FlopbenchError: the task has none. Calls raise it where the network gives something else.
    """
    if task not in SUPERVISED:
        raise FlopbenchError(
            f"a training step of {task} needs a loss: state one, or measure forward and backward"
        )
    supervision = SUPERVISED[task]
    target = cache(supervision.target)

    def loss(output: Any, inputs: Inputs) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim not in supervision.axes:
            raise FlopbenchError(
                f"a training step needs {supervision.takes}, the network gives {described(output)}: "
                "state a loss, or measure forward and backward"
            )
        return supervision.loss(output.float(), target(output.shape, output.device))

    return loss
