"""What a step of training is made of: optimiser, learning rate, mixed labels, loss, averaged weights."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from flopbench.errors import FlopbenchError, gist, unknown
from flopbench.loss import cross_entropy
from flopbench.recipes import Loss, Mix, Optimiser, Schedule

Mixer = Callable[[Tensor, Tensor], Tensor]
"""Images `[B, 3, H, W]`, which it writes over, and labels `[B]` to targets: labels, or shares `[B, K]`."""


def make_optimiser(model: nn.Module, settings: Optimiser) -> torch.optim.Optimizer:
    """An optimiser of timm's. No decay has what has one dimension, and what the network names: class tokens
    and embeddings of positions.

    timm's `lamb` bounds the norm of all gradients by itself, at 1 where the recipe does not say, as apex's.

    Raises:
        FlopbenchError: no such optimiser, one that has no `betas` and is given some, or settings that it
            refuses; timm is missing.
    """
    timm, name = _timm("optim"), settings.name
    if name not in (known := timm.list_optimizers()):
        raise unknown("optimiser", name, known)
    accepted = inspect.signature(timm.get_optimizer_class(name, bind_defaults=False)).parameters
    if settings.betas and "betas" not in accepted:
        raise FlopbenchError(f"optimiser {name!r} has no betas: leave them out of the recipe")
    # Of complex numbers there is no fused version.
    fused = all(parameter.is_floating_point() for parameter in model.parameters())
    wanted = {
        "eps": settings.eps,
        "betas": settings.betas,
        "fused": fused or None,
        "max_grad_norm": settings.clip,
    }
    given = {key: value for key, value in wanted.items() if value is not None and key in accepted}
    try:
        return timm.create_optimizer_v2(
            model, name, lr=settings.learning_rate, weight_decay=settings.weight_decay, **given
        )
    except ValueError as error:
        raise FlopbenchError(f"optimiser {name!r} refuses its settings: {gist(str(error))}") from None


def make_schedule(
    optimiser: torch.optim.Optimizer, settings: Schedule, steps: int, steps_per_epoch: int
) -> Callable[[int], None]:
    """What sets the learning rate of a step, which depends on nothing else; it is called before each."""
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    scheduler = _timm("scheduler").CosineLRScheduler(
        optimiser,
        t_initial=steps - warmup if settings.whole_cosine else steps,
        lr_min=settings.final_rate,
        warmup_t=warmup,
        warmup_prefix=settings.whole_cosine,
        warmup_lr_init=settings.warmup_rate,
        t_in_epochs=False,
    )
    unit = 1 if settings.per == "step" else steps_per_epoch
    return lambda step: scheduler.step_update(step - step % unit)


def make_mixer(settings: Mix, classes: int) -> Mixer:
    """timm's Mixup of a batch, or no mixing.

    A batch is mixed with its reverse, not with its neighbours: repeated augmentation puts versions of one
    image side by side. It draws from numpy's global generator.
    """
    if not settings.mixup and not settings.cutmix:
        return lambda images, labels: labels
    mixup = _timm("data").Mixup(
        settings.mixup, settings.cutmix, switch_prob=settings.switch, label_smoothing=0.0, num_classes=classes
    )

    def mix(images: Tensor, labels: Tensor) -> Tensor:
        # timm's takes even batches alone. Of an odd one, some image is its own partner: the last here.
        even = len(images) // 2 * 2
        targets = F.one_hot(labels, classes).float()
        targets[:even] = mixup(images[:even], labels[:even])[1]
        return targets

    return mix


def make_loss(settings: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """Of logits `[B, classes]` and targets, in fp32; their mean. Cross-entropy takes logits of pixels, too,
    `[B, classes, H, W]`, and labels `[B, H, W]`.
    """

    def of_classes(logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits.float(), targets, settings.smoothing)

    def binary(logits: Tensor, targets: Tensor) -> Tensor:
        classes = logits.shape[1]
        present = targets > 0 if targets.ndim == 2 else F.one_hot(targets, classes)
        smoothed = present * (1 - settings.smoothing) + settings.smoothing / classes
        return F.binary_cross_entropy_with_logits(logits.float(), smoothed.float())

    return binary if settings.name == "binary-cross-entropy" else of_classes


class Average:
    """The exponential moving average of a network's weights and floating-point buffers.

    They are kept as tensors, not as a second network: to be evaluated they change places with the network's
    own, so that what is compiled serves both.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        tensors = (*model.parameters(), *model.buffers())
        self.own = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
        self.averages = [tensor.clone() for tensor in self.own]
        self.average = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Move the averages towards what the network has now."""
        self.average(self.averages, self.own, 1)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the network has the averages, and changes to its weights are changes of these."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for own, average in zip(self.own, self.averages, strict=True):
            held = own.clone()
            own.copy_(average)
            average.copy_(held)


def _timm(part: str) -> Any:
    try:
        return import_module(f"timm.{part}")
    except ImportError:
        raise FlopbenchError("training needs timm and torchvision: pip install 'flopbench[train]'") from None
