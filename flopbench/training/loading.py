"""Images of files as batches: read, decoded and transformed by worker processes, normalised on the device."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from flopbench.errors import FlopbenchError, gist
from flopbench.training.batches import Batch, normalised, per_channel, seeded
from flopbench.training.world import World

MOST_WORKERS = 16

Transform = Callable[[Any], Tensor]
"""From an image of Pillow to bytes [3, H, W]."""

Sample = tuple[Tensor, int] | FlopbenchError
"""Bytes [3, H, W] and a label, or why there are none: a worker that raises it would send a stack with it."""


class Key(NamedTuple):
    """Which image of a set, and what its random numbers are a function of."""

    number: int
    seed: int = 0
    epoch: int = 0
    version: int = 0


class Source(NamedTuple):
    """One split of a set of images.

    Attributes:
        images: what timm's `create_dataset` made.
        name: as records have it, without a path.
        split: which.
        classes: names in the order of the labels.
        digest: twelve hexadecimal digits of the files' names, where these are known.
    """

    images: Any
    name: str
    split: str
    classes: tuple[str, ...]
    digest: str | None = None


class Samples(Dataset[Sample]):
    """Images that are asked for by their numbers, each transformed by random numbers of its own key."""

    def __init__(self, source: Source, transform: Transform):
        self.source = source
        self.transform = transform

    def __getitem__(self, key: Key) -> Sample:
        """The image of a key and its label."""
        try:
            image, label = self._read(key.number)
            _refuse_foreign(label, self.source, self._place, key.number)
        except FlopbenchError as error:
            return error
        with seeded(*key):
            return self.transform(image), int(label)

    def _read(self, index: int) -> tuple[Any, int]:
        images = self.source.images
        try:
            # timm's own `images[index]` takes the next image instead of one that cannot be read.
            if hasattr(images, "reader"):
                file, label, *_ = images.reader[index]
                with file:
                    image = in_colour(Image.open(file))
            else:
                image, label = images[index]
                image = in_colour(image)
        except UnidentifiedImageError:
            raise FlopbenchError(f"{self._place(index)} is no image") from None
        # Pillow's decoders raise errors of all kinds.
        except Exception as error:
            what = gist(str(error)) or type(error).__name__
            raise FlopbenchError(f"{self._place(index)} cannot be read: {what}") from None
        return image, label

    def _place(self, index: int) -> str:
        """Where an image lies: its file where it has one."""
        reader = getattr(self.source.images, "reader", None)
        path = reader.filename(index, absolute=True) if reader else None
        return path or f"image {index} of {self.source.name} ({self.source.split})"


def in_colour(image: Image.Image) -> Image.Image:
    """An image as three channels of 8 bits, whatever it has.

    Raises:
        ValueError: its values are neither of 8 nor of 16 bits, and nothing says which of them is white.
    """
    if image.mode.startswith("I;16"):
        # Pillow would make white of all that 8 bits cannot hold.
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels are numbers of 32 bits: save it with 8 or 16")
    return image.convert("RGB")


class StreamedSamples(IterableDataset[Sample]):
    """Images that come in the order of a reader of timm's.

    Args:
        source: which; unreadable images of it timm leaves out, with a warning.
        transform: of each image.
        key: what the random numbers are a function of, beside the worker and the place within its part.
        repeats: how often each image comes, in as many versions.
        every: (first, step): only these images are handed on.
        expected: how many the source has to have in all; None: as many as it likes.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        key: tuple[int, ...],
        *,
        repeats: int = 1,
        every: tuple[int, int] = (0, 1),
        expected: int | None = None,
    ):
        self.source = source
        self.transform = transform
        self.key = key
        self.repeats = repeats
        self.every = every
        self.expected = expected

    def __iter__(self) -> Iterator[Sample]:
        """The images and labels."""
        worker = get_worker_info()
        number = worker.id if worker else 0
        first, step = self.every
        place = -1
        for place, (image, label) in enumerate(self.source.images):
            if place % step != first:
                continue
            try:
                _refuse_foreign(label, self.source, self._place, place)
            except FlopbenchError as error:
                yield error
                return
            for version in range(self.repeats):
                with seeded(*self.key, number, place, version):
                    transformed = self.transform(in_colour(image))
                yield transformed, int(label)
        if self.expected not in (None, place + 1):
            yield FlopbenchError(
                f"{self.source.name} ({self.source.split}) has {place + 1} images that can be read, not "
                f"the {self.expected} that it tells of"
            )

    def _place(self, number: int) -> str:
        return f"image {number} of {self.source.name} ({self.source.split})"


@dataclass(frozen=True)
class Loading:
    """How images reach the device.

    Attributes:
        world: the processes that share them, and the device.
        workers: processes that read images for this one; with 0 it reads them itself.
        mean, std: of the three channels, of values between 0 and 1: what images are normalised by.
    """

    world: World
    workers: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def batches(self, samples: Samples | StreamedSamples, seed: int = 0, **parts: Any) -> Iterator[Batch]:
        """Batches on the device.

        The workers end with the iteration, also where it ends early.

        Args:
            samples: what is read.
            seed: that of the workers, which the readers of streams go by.
            parts: `batch_sampler`, the keys of each batch, or `batch_size` of a stream, and whatever else
                `DataLoader` takes.

        Raises:
            FlopbenchError: an image that cannot be read, or a label without a class.
        """
        device = self.world.device
        scale = per_channel(self.mean, device), per_channel(self.std, device)
        settings = {"num_workers": self.workers, "collate_fn": _collated, "pin_memory": device.type == "cuda"}
        generator = torch.Generator().manual_seed(seed)
        for batch in DataLoader(samples, generator=generator, **(settings | parts)):
            if isinstance(batch, FlopbenchError):
                raise batch
            images, labels = (part.to(device, non_blocking=True) for part in batch)
            yield Batch(normalised(images, *scale), labels)


def workers_for(world: World) -> int:
    """How many processes read images for this one: one core is left to it, and of two or fewer all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Of `torchrun`, as many processes as there are here.
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world.size > 1 else 1
    own = cores // beside
    return min(own - 1, MOST_WORKERS) if own > 2 else 0


def _collated(samples: list[Sample]) -> tuple[Tensor, Tensor] | FlopbenchError:
    whole = list[tuple[Tensor, int]]()
    for sample in samples:
        if isinstance(sample, FlopbenchError):
            return sample
        whole.append(sample)
    return torch.stack([image for image, _ in whole]), torch.tensor([label for _, label in whole])


def _refuse_foreign(label: Any, source: Source, place: Callable[[int], str], number: int) -> None:
    if label is None or not 0 <= label < len(source.classes):
        raise FlopbenchError(f"label {label} of {place(number)} is none of {len(source.classes)} classes")
