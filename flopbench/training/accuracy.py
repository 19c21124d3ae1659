"""How right a network is on images and on their mirror images."""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.results.trainings import Accuracy, Scores
from flopbench.training.world import World

# Where there are no more classes than that, the right one is always among the likeliest five.
_LIKELIEST = 5


@torch.no_grad()
def measure_accuracy(
    network: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    world: World,
    *,
    averaged: bool = False,
) -> Accuracy:
    """Show a network every image and its mirror image, and compare what it says with the labels.

    A batch that is smaller than the first one is filled up with copies of its first image, which do not
    count: a compiled network sees one shape, and nothing is compiled for the last batch alone.

    Args:
        network: images `[B, 3, H, W]` to logits `[B, classes]`, in evaluation mode.
        batches: images and labels `[B]`: this process's share of the data set, each image once.
        world: whose processes evaluate together; each calls this, and gets the figures of all images.
        averaged: whether to score the mean of both probabilities, too.

    Raises:
        FlopbenchError: there are no images, or the network gives values that are not finite.
    """
    # By what was looked at (plain, mirrored, averaged): right, among the likeliest five, negative
    # log-likelihood; then the images, those of more than five classes, those with one prediction for both.
    sums = torch.zeros(12, dtype=torch.float64, device=world.device)
    size = 0
    for images, labels in batches:
        size = size or len(images)
        plain, mirrored = (_log_probabilities(network, view, size) for view in (images, images.flip(-1)))
        both = torch.logaddexp(plain, mirrored) - math.log(2)
        several = plain.shape[1] > _LIKELIEST
        alike = (plain.argmax(1) == mirrored.argmax(1)).sum()
        counts = [len(images), len(images) * several, alike]
        scored = [figure for view in (plain, mirrored, both) for figure in _scored(view, labels)]
        sums += torch.stack([torch.as_tensor(x, device=sums.device).double() for x in (*scored, *counts)])
    *figures, seen, several, alike = world.sum(sums).tolist()
    if not seen:
        raise FlopbenchError("there are no images to evaluate on")
    if not all(map(math.isfinite, figures)):
        raise FlopbenchError("the network's logits are not finite: its weights, or their dtype, do not work")
    plain, mirrored, both = (
        Scores(top1=right / seen, top5=near / seen if several else None, nll=nll / seen)
        for right, near, nll in zip(*[iter(figures)] * 3, strict=True)
    )
    return Accuracy(
        images=int(seen),
        plain=plain,
        mirrored=mirrored,
        flip_consistency=alike / seen,
        averaged=both if averaged else None,
    )


def _log_probabilities(network: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    """`[B, classes]` in fp64, in memory of its own: the next run of a CUDA graph overwrites its outputs."""
    given = len(images)
    if given < size:
        images = torch.cat([images, images[:1].expand(size - given, *images.shape[1:])])
    return F.log_softmax(network(images)[:given].double(), 1)


def _scored(predicted: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many are right at once and among the likeliest, and the sum of the negative log-likelihoods."""
    right = (predicted.argmax(1) == labels).sum()
    likeliest = predicted.topk(min(_LIKELIEST, predicted.shape[1])).indices
    near = (likeliest == labels[:, None]).sum()
    return right, near, F.nll_loss(predicted, labels, reduction="sum")
