"""How right a network is on images and on their mirror images."""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.models.tasks import CLASSIFICATION, Task
from flopbench.results.trainings import Accuracy, Scores
from flopbench.symmetries.actions import OF_KIND
from flopbench.symmetries.generators import Generator, flop_columns
from flopbench.training.world import World

# Where there are no more classes than that, the right one is always among the likeliest five.
_LIKELIEST = 5
# As it acts on images and on what networks say of these; it is its own inverse.
_MIRROR = Generator("mirror", flop_columns, parts=())


@torch.no_grad()
def measure_accuracy(
    network: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    world: World,
    *,
    task: Task = CLASSIFICATION,
    classes: int = 0,
    averaged: bool = False,
) -> Accuracy:
    """Show a network every image and its mirror image, and compare what it says with the labels; what it says
    of a mirror image's pixels, with the labels of the places where they were.

    A batch that is smaller than the first one is filled up with copies of its first image, which do not
    count: a compiled network sees one shape, and nothing is compiled for the last batch alone.

    Args:
        network: images `[B, 3, H, W]` to logits `[B, classes]` or, of a segmentation, `[B, classes, H, W]`,
            in evaluation mode.
        batches: images and labels `[B]` or `[B, H, W]`: this process's share of the data set, each image
            once.
        world: whose processes evaluate together; each calls this, and gets the figures of all images.
        task: what the network gives.
        classes: how many there are, of a segmentation. Intersections and unions are those of all images
            together, and the mean is over the classes that some pixel has or is said to have.
        averaged: whether to score the mean of both probabilities, too.

    Raises:
        FlopbenchError: there are no images, or the network gives values that are not finite.
    """
    act = OF_KIND[task.kind].act
    counted = classes if task.decodes else 0
    # By what was looked at (plain, mirrored, averaged): what `_scored` gives. Then the images, what has a
    # prediction, that of it which has more than five classes to count, and that with one prediction for both.
    figures = torch.zeros(3, 3 + 3 * counted, dtype=torch.float64, device=world.device)
    counts = torch.zeros(4, dtype=torch.float64, device=world.device)
    size = 0
    for images, labels in batches:
        size = size or len(images)
        plain = _log_probabilities(network, images, size)
        mirrored = act(_MIRROR, _log_probabilities(network, _MIRROR.images(images), size))
        both = torch.logaddexp(plain, mirrored) - math.log(2)
        several = plain.shape[1] > _LIKELIEST and not counted
        alike = (plain.argmax(1) == mirrored.argmax(1)).sum()
        figures += torch.stack([_scored(view, labels, counted) for view in (plain, mirrored, both)])
        counts += torch.stack(
            [alike.new_tensor(n) for n in (len(images), labels.numel(), labels.numel() * several)] + [alike]
        )
    sums = world.sum(torch.cat([figures.flatten(), counts]))
    figures, (seen, predicted, several, alike) = sums[:-4].view_as(figures), sums[-4:].tolist()
    if not seen:
        raise FlopbenchError("there are no images to evaluate on")
    if not figures.isfinite().all():
        raise FlopbenchError("the network's logits are not finite: its weights, or their dtype, do not work")
    plain, mirrored, both = (
        Scores(
            top1=right / predicted,
            top5=near / predicted if several else None,
            nll=nll / predicted,
            miou=mean_iou(*by_class.view(3, -1)) if counted else None,
        )
        for (right, near, nll), by_class in ((row[:3].tolist(), row[3:]) for row in figures)
    )
    return Accuracy(
        images=int(seen),
        plain=plain,
        mirrored=mirrored,
        flip_consistency=alike / predicted,
        averaged=both if averaged else None,
    )


def mean_iou(right: Tensor, of_it: Tensor, said: Tensor) -> float:
    """The mean, over the classes that there are, of their intersections over unions.

    Args:
        right: pixels of each class [K] that are said to be of it.
        of_it: pixels that are of it.
        said: pixels that are said to be of it.
    """
    unions = of_it + said - right
    return (right / unions)[unions > 0].mean().item()


def _log_probabilities(network: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    """Of logits `[B, classes, ...]`, in fp64 and in memory of their own: the next run of a CUDA graph
    overwrites its outputs.
    """
    given = len(images)
    if given < size:
        images = torch.cat([images, images[:1].expand(size - given, *images.shape[1:])])
    return F.log_softmax(network(images)[:given].double(), 1)


def _scored(predicted: Tensor, labels: Tensor, counted: int) -> Tensor:
    """How many are right at once and among the likeliest, and the sum of the negative log-likelihoods; then,
    of so many classes that are `counted`, what `mean_iou` takes, in the place of the likeliest; fp64.
    """
    first, nll = predicted.argmax(1), F.nll_loss(predicted, labels, reduction="sum")
    right = first == labels
    if counted:
        by_class = [one.flatten().bincount(minlength=counted) for one in (labels[right], labels, first)]
        return torch.cat([right.sum()[None], nll.new_zeros(1), nll[None], *by_class])
    likeliest = predicted.topk(min(_LIKELIEST, predicted.shape[1])).indices
    return torch.stack([right.sum(), (likeliest == labels[:, None]).sum(), nll])
