"""Sets whose images are read by their numbers: in a seeded order, resumed at any step."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flopbench.recipes import Recipe
from flopbench.results.trainings import DataInfo
from flopbench.training.augmenting import Augmenter
from flopbench.training.batches import Batch, epoch_order, share, whole_steps
from flopbench.training.loading import Key, Samples, Source, Transform, loaded
from flopbench.training.world import World


class FileValidation:
    """A validation split of files; see `flopbench.training.data.ValidationData`."""

    def __init__(
        self,
        source: Source,
        transform: Transform,
        world: World,
        workers: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        self.validation = info_of(source)
        self.classes = source.classes
        self.mean = mean
        self.std = std
        self._validation = Samples(source, transform)
        self._world = world
        self._workers = workers
        self._scale = scale_of(mean, world), scale_of(std, world)

    def validating(self, batch_size: int) -> Iterator[Batch]:
        """This process's share of the validation images, up to `batch_size` at a time."""
        own = range(self._world.rank, self.validation.images, self._world.size)
        keys = (
            [Key(index) for index in own[first : first + batch_size]]
            for first in range(0, len(own), batch_size)
        )
        yield from loaded(self._validation, self._world, self._workers, self._scale, keys=keys)


class FileData(FileValidation):
    """Both splits of a set of files; see `flopbench.training.data.Data`."""

    def __init__(
        self,
        training: Source,
        validation: Source,
        transform: Transform,
        recipe: Recipe,
        world: World,
        workers: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        super().__init__(validation, transform, world, workers, mean, std)
        self.info = info_of(training)
        self._training = training
        self._repeats = recipe.augmentation.repeats
        self._augmenter = Augmenter(recipe, mean, world.device)

    def steps(self, batch_size: int) -> int:
        """Whole global batches per epoch."""
        return whole_steps(self.info.name, self.info.images, batch_size, self._world)

    def training(
        self, epoch: int, start: int, batch_size: int, *, seed: int, mirror: float | None = None
    ) -> Iterator[Batch]:
        """This process's share of every global batch of an epoch, from step `start` on."""
        steps = range(start, self.steps(batch_size))
        order = epoch_order(self.info.images, self._repeats, seed, epoch)
        keys = (
            [
                Key(index, seed, epoch, version)
                for index, version in zip(
                    order.indices[places].tolist(), order.versions[places].tolist(), strict=True
                )
            ]
            for places in (share(step, batch_size, self._world) for step in steps)
        )
        samples = Samples(self._training, self._augmenter.transform(mirror))
        batches = loaded(samples, self._world, self._workers, self._scale, keys=keys)
        for step, (images, labels) in zip(steps, batches, strict=True):
            yield Batch(self._augmenter.erased(images, seed, epoch, step, self._world.rank), labels)


def info_of(source: Source) -> DataInfo:
    """What a record says of a split."""
    return DataInfo(
        name=source.name, split=source.split, images=len(source.images), classes=len(source.classes)
    )


def scale_of(values: tuple[float, ...], world: World) -> Tensor:
    """What `normalised` takes of one value per channel: [3, 1, 1]."""
    return torch.tensor(values, dtype=torch.float32, device=world.device)[:, None, None]
