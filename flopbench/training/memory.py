"""A set of grey images that lies on the device as a whole, and is augmented there batch by batch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.recipes import Augmentation, Recipe
from flopbench.results.trainings import DataInfo
from flopbench.training.batches import (
    Batch,
    epoch_order,
    generator,
    normalised,
    per_channel,
    share,
    whole_steps,
)
from flopbench.training.builtin import ImageSet, Split
from flopbench.training.world import World

TAKEN = ("shift", "mirror", "repeats")
"""The augmentations that there are on tensors."""


class InMemory:
    """A set's two splits; see `flopbench.training.data.Data`.

    Where `image_size` is larger than the images, they are magnified by the whole number that fits and
    surrounded by background, equally on opposite sides: the mirror image of one is that of what it shows.
    Maps of labels go wherever their images go.
    """

    def __init__(
        self,
        images: ImageSet,
        image_size: tuple[int, int],
        world: World,
        augmentation: Augmentation | None = None,
        *,
        shown: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ):
        pixels = np.bincount(images.training.images.ravel(), minlength=256) / images.training.images.size
        values = np.arange(256) / 255
        average = float(pixels @ values)
        deviation = float(pixels @ (values - average) ** 2) ** 0.5
        self.mean = mean or (average,) * 3
        self.std = std or (deviation,) * 3
        self.classes = images.classes
        self.info = _info(images, "training", images.training)
        self.validation = _info(images, "validation", images.validation)
        every = self.validation.images
        if shown is not None and shown < every:
            self.validation = self.validation.model_copy(update={"images": shown})
        # Which of them, spread evenly.
        places = torch.arange(self.validation.images, device=world.device)
        self._shown = places * every // self.validation.images
        self._magnified = _magnification(images, image_size)
        self._size = image_size
        self._world = world
        self._augmentation = augmentation or Augmentation(mirror=0)
        self._training, self._validation = (
            tuple(torch.tensor(array, device=world.device) for array in split)
            for split in (images.training, images.validation)
        )
        self._scale = tuple(per_channel(values, world.device) for values in (self.mean, self.std))

    def steps(self, batch_size: int) -> int:
        """Whole global batches per epoch."""
        return whole_steps(self.info.name, self.info.images, batch_size, self._world)

    def training(
        self, epoch: int, start: int, batch_size: int, *, seed: int, mirror: float | None = None
    ) -> Iterator[Batch]:
        """This process's share of every global batch of an epoch, from step `start` on."""
        steps = self.steps(batch_size)
        images, device = self.info.images, self._world.device
        shift = self._augmentation.shift
        mirror = self._augmentation.mirror if mirror is None else mirror
        # The whole epoch at once, for every process and from every step the same.
        order = torch.from_numpy(epoch_order(images, self._augmentation.repeats, seed, epoch).indices).to(
            device
        )
        draws = generator(seed, epoch, 1)
        mirrored = torch.from_numpy(draws.random(images) < mirror).to(device)
        shifts = torch.from_numpy(draws.integers(-shift, shift + 1, (2, images))).to(device)
        for step in range(start, steps):
            places = share(step, batch_size, self._world)
            yield self._batch(self._training, order[places], mirrored[places], shifts[:, places])

    def validating(self, batch_size: int) -> Iterator[Batch]:
        """This process's share of the validation images, up to `batch_size` at a time."""
        own = self._shown[self._world.rank :: self._world.size]
        for indices in own.split(batch_size):
            still = torch.zeros(2, len(indices), dtype=torch.int64, device=self._world.device)
            yield self._batch(self._validation, indices, still[0].bool(), still)

    def _batch(self, split: tuple[Tensor, ...], indices: Tensor, mirrored: Tensor, shifts: Tensor) -> Batch:
        images, labels = split
        # Whence each pixel comes: one gather magnifies, surrounds, shifts and mirrors.
        sources, inside = zip(
            *(
                self._sources(axis, images.shape[1 + axis], moved, mirrored if axis == 1 else None)
                for axis, moved in enumerate(shifts)
            ),
            strict=True,
        )
        pixel = indices[:, None, None], sources[0][:, :, None], sources[1][:, None, :]
        within = inside[0][:, :, None] & inside[1][:, None, :]
        shown = normalised((images[pixel] * within)[:, None], *self._scale)
        return Batch(shown, labels[indices] if labels.ndim == 1 else labels[pixel].long() * within)

    def _sources(
        self, axis: int, length: int, moved: Tensor, mirrored: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Which row or column of the set's image each of the batch's shows [B, n], and whether it has it."""
        size = self._size[axis]
        places = torch.arange(size, device=moved.device).expand(len(moved), size)
        if mirrored is not None:
            places = torch.where(mirrored[:, None], size - 1 - places, places)
        margin = (size - self._magnified * length) // 2
        places = torch.div(places - margin + moved[:, None], self._magnified, rounding_mode="floor")
        return places.clamp(0, length - 1), (places >= 0) & (places < length)


def refuse_others(name: str, recipe: Recipe) -> None:
    """Refuse a recipe of other augmentations than there are on tensors."""
    default = Augmentation()
    # How pixels are interpolated says nothing where none are.
    others = [
        field
        for field in Augmentation.model_fields
        if field not in (*TAKEN, "interpolation")
        and getattr(recipe.augmentation, field) != getattr(default, field)
    ]
    if others:
        raise FlopbenchError(
            f"{name} takes the augmentations {', '.join(TAKEN)} alone; {recipe.name} also has "
            f"{', '.join(others)}"
        )


def mirror_asymmetry(split: Split, classes: tuple[str, ...]) -> dict[str, float]:
    """How far from mirror-symmetric each class is: the share of its mean image's energy, the sum of squares,
    that the antisymmetric half has; of maps of labels, in the place of the mean image, of where the class is.
    """
    if split.labels.ndim > 1:
        means = np.stack([(split.labels == label).mean(0) for label in range(len(classes))])
    else:
        means = np.stack([split.images[split.labels == label].mean(0) for label in range(len(classes))])
    antisymmetric = (means - means[:, :, ::-1]) / 2
    # A class whose mean image is background alone is symmetric.
    energies = np.maximum((means**2).sum((1, 2)), np.finfo(float).tiny)
    shares = (antisymmetric**2).sum((1, 2)) / energies
    return dict(zip(classes, shares.tolist(), strict=True))


def _info(images: ImageSet, name: str, split: Split) -> DataInfo:
    return DataInfo(
        name=images.name,
        split=name,
        images=len(split.labels),
        classes=len(images.classes),
        digest=split.digest,
        left_out=dict(images.left_out),
        mirror_asymmetry=float(np.mean(list(mirror_asymmetry(split, images.classes).values()))),
        oriented=images.oriented,
        task=images.task,
    )


def _magnification(images: ImageSet, size: tuple[int, int]) -> int:
    """How many pixels each way one of the set becomes.

    Raises:
        FlopbenchError: the images are larger than `size`, or cannot lie in its middle.
    """
    shape = images.training.images.shape[1:]
    factor = min(size[0] // shape[0], size[1] // shape[1])
    if factor == 0 or any((outer - factor * inner) % 2 for outer, inner in zip(size, shape, strict=True)):
        why = "are larger than" if factor == 0 else "cannot lie in the middle of"
        raise FlopbenchError(
            f"images of {images.name}, {shape[0]}x{shape[1]}, {why} image_size {size[0]}x{size[1]}: take "
            f"{shape[0]}x{shape[1]}, or an even number of pixels more"
        )
    return factor
