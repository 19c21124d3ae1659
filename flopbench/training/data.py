"""Data sets by their names: images and labels as batches on the device, shared out among processes.

- `animal-shape-mnist`, `fashion-mnist`, `digits`: small sets that packages ship, see `builtin`; `NAME:FOLDER`
  reads the same files from another folder. Also `animal-segmentation`, which has a label per pixel.
- `FOLDER`: `train/CLASS/IMAGE` and `val/CLASS/IMAGE`; for an evaluation also `CLASS/IMAGE`.
- `hfds/NAME`, `wds/FOLDER`, `tfds/NAME`, `torch/NAME`: what timm reads by that name; `torch/NAME:FOLDER` and
  the like say where it lies.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.models.tasks import CLASSIFICATION, TaskName
from flopbench.recipes import Recipe
from flopbench.results.trainings import DataInfo
from flopbench.training.batches import Batch
from flopbench.training.builtin import SETS, ImageSet
from flopbench.training.memory import InMemory, refuse_others
from flopbench.training.world import World

# Images per call of a calibration.
_FEW = 4


class ValidationData(Protocol):
    """Images that accuracy is measured on.

    Attributes:
        validation: which, and how many.
        classes: names in the order of the labels.
        mean, std: of the three channels, of values between 0 and 1: what images are normalised by.
    """

    validation: DataInfo
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def validating(self, batch_size: int) -> Iterator[Batch]:
        """This process's share of the images, up to `batch_size` at a time; all processes together have each
        image once.

        Raises:
            FlopbenchError: an image that cannot be read, or a label without a class, naming the file.
        """
        ...


class Data(ValidationData, Protocol):
    """Images to train on as well; `info` says which, and how many."""

    info: DataInfo

    def steps(self, batch_size: int) -> int:
        """Whole batches per epoch, of `batch_size` images over all processes.

        Raises:
            FlopbenchError: there are fewer images, or the processes cannot share a batch evenly.
        """
        ...

    def training(
        self, epoch: int, start: int, batch_size: int, *, seed: int, mirror: float | None = None
    ) -> Iterator[Batch]:
        """This process's share of every batch of an epoch, from step `start` to its end.

        What is in them is a function of the seed, the epoch and the place within it: not of where one began,
        how many processes share a batch, or how many workers read.

        Args:
            epoch: from 0.
            start: the first step, from 0.
            batch_size: images per step over all processes.
            seed: not negative.
            mirror: the share of images that are mirrored; None: the recipe's.

        Raises:
            FlopbenchError: as `steps` and `validating`.
        """
        ...


def open_data(
    name: str, recipe: Recipe, world: World, *, num_classes: int | None = None, workers: int | None = None
) -> Data:
    """A set to train on by a recipe, which says how images are augmented and how large they are.

    Args:
        name: see the module.
        recipe: for its `image_size`, `augmentation` and `evaluation`.
        world: the processes that share it, and the device.
        num_classes: how many there are, for sets that do not say so, such as those of `wds/`.
        workers: processes that read images for this one; None: what suits the machine.

    Raises:
        FlopbenchError: no such set, a package that it needs is not installed, what its files have does not
            fit together, or the recipe wants of it what it cannot give.
    """
    if (images := _shipped(name, num_classes, recipe.task)) is not None:
        refuse_others(images.name, recipe)
        return InMemory(images, recipe.image_size, world, recipe.augmentation, shown=recipe.evaluation.images)
    _check_task(name, CLASSIFICATION.name, recipe.task)
    if recipe.evaluation.images is not None:
        raise FlopbenchError(
            f"evaluation.images of {recipe.name}: {name} does not fit into memory and is evaluated whole; "
            "leave it out"
        )
    with _timm():
        from flopbench.training.files import open_files
    return open_files(name, recipe, world, num_classes=num_classes, workers=workers)


def open_validation(
    name: str,
    *,
    image_size: tuple[int, int],
    world: World,
    crop: float = 1.0,
    interpolation: str = "bicubic",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    num_classes: int | None = None,
    workers: int | None = None,
    task: TaskName | None = "classification",
) -> ValidationData:
    """A set to measure accuracy on.

    Args:
        name: see the module.
        image_size: pixels, (height, width).
        world: the processes that share it, and the device.
        crop: images are resized so that a centre crop of `image_size` is this share of their shorter side;
            sets that fit into memory are neither resized nor cropped.
        interpolation: bilinear or bicubic.
        mean, std: what images are normalised by; None: of ImageNet, or of the set's training split where it
            fits into memory.
        num_classes: how many the network has. Folders that are named after ImageNet's synsets, or by numbers,
            then have its labels, be they ever so few; None: those of the folders in their order.
        workers: processes that read images for this one; None: what suits the machine.
        task: what its labels are to be for; None where they are for nothing.

    Raises:
        FlopbenchError: as `open_data`; the set's labels are not those of a network of `num_classes`.
    """
    if (images := _shipped(name, num_classes, task)) is not None:
        return InMemory(images, image_size, world, mean=mean, std=std)
    _check_task(name, CLASSIFICATION.name, task)
    with _timm():
        from flopbench.training.files import open_validation_files
    return open_validation_files(
        name,
        image_size=image_size,
        world=world,
        crop=crop,
        interpolation=interpolation,
        mean=mean,
        std=std,
        num_classes=num_classes,
        workers=workers,
    )


def spread(
    opened: Callable[[World], ValidationData], whole: ValidationData, count: int, here: World
) -> list[Tensor]:
    """Up to so many images, evenly over a set: of one that is sorted by its classes, of all of them.

    Args:
        opened: the set, as given processes share it.
        whole: it, undivided.
        count: images, at most: of a set of `n`, every ⌈n / count⌉-th.
        here: whose device they are to be on.

    Returns:
        `[B, 3, H, W]` each, a few images.
    """
    # The share of one of so many processes is every so many-th image.
    share = opened(World(here.device, 0, -(-whole.validation.images // count)))
    return [images.float() for images, _ in share.validating(_FEW)]


def _shipped(name: str, num_classes: int | None, task: TaskName | None) -> ImageSet | None:
    """The set that packages ship by this name, if it is one of them."""
    base, _, folder = name.partition(":")
    if base not in SETS:
        return None
    images = SETS[base](Path(folder) if folder else None)
    _check_task(base, images.task, task)
    if num_classes not in (None, len(images.classes)):
        raise FlopbenchError(f"{base} has {len(images.classes)} classes, the network {num_classes}")
    return images


def _check_task(name: str, has: TaskName, wanted: TaskName | None) -> None:
    if wanted not in (None, has):
        raise FlopbenchError(f"the labels of {name} are for {has}, what is wanted is {wanted}")


@contextmanager
def _timm() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise FlopbenchError(
            f"image files need timm and torchvision: pip install 'flopbench[train]' ({error})"
        ) from None
