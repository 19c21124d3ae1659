"""Sets of image files: folders, and what timm reads by the names that it has for them."""

from collections.abc import Iterator
from pathlib import Path

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from flopbench.errors import FlopbenchError, unknown
from flopbench.recipes import Recipe
from flopbench.results.trainings import DataInfo
from flopbench.training import timm_sets
from flopbench.training.augmenting import Augmenter, evaluation_transform
from flopbench.training.batches import Batch, whole_steps
from flopbench.training.builtin import SETS
from flopbench.training.folders import open_folders, open_validation_folder
from flopbench.training.loading import Loading, Transform, workers_for
from flopbench.training.splits import Numbered, Split, Streamed, Stretch
from flopbench.training.world import World


class FileValidation:
    """A validation split of image files; see `flopbench.training.data.ValidationData`."""

    def __init__(self, validation: Split, transform: Transform, loading: Loading):
        self.validation = _info(validation)
        self.classes = validation.source.classes
        self.mean = loading.mean
        self.std = loading.std
        self._validation = validation
        self._transform = transform
        self._loading = loading

    def validating(self, batch_size: int) -> Iterator[Batch]:
        """This process's share of the validation images, up to `batch_size` at a time."""
        return self._validation.still(self._transform, batch_size, self._loading)


class FileData(FileValidation):
    """Both splits of a set of image files; see `flopbench.training.data.Data`."""

    def __init__(
        self, training: Split, validation: Split, transform: Transform, loading: Loading, recipe: Recipe
    ):
        super().__init__(validation, transform, loading)
        self.info = _info(training, loading.workers)
        self._training = training
        self._repeats = recipe.augmentation.repeats
        self._augmenter = Augmenter(recipe, loading.mean, loading.world.device)

    def steps(self, batch_size: int) -> int:
        """Whole global batches per epoch."""
        return whole_steps(self.info.name, self.info.images, batch_size, self._loading.world)

    def training(
        self, epoch: int, start: int, batch_size: int, *, seed: int, mirror: float | None = None
    ) -> Iterator[Batch]:
        """This process's share of every global batch of an epoch, from step `start` on."""
        stretch = Stretch(seed, epoch, start, self.steps(batch_size), batch_size, self._repeats)
        batches = self._training.shuffled(self._augmenter.transform(mirror), stretch, self._loading)
        for step, (images, labels) in enumerate(batches, start):
            yield Batch(self._augmenter.erased(images, seed, epoch, step, self._loading.world.rank), labels)


def open_files(
    name: str, recipe: Recipe, world: World, *, num_classes: int | None, workers: int | None
) -> FileData:
    """A set to train on; see `flopbench.training.data.open_data`."""
    if timm_sets.is_timms(name):
        training, validation = (
            timm_sets.open_set(name, split, num_classes) for split in ("training", "validation")
        )
        if training.source.classes != validation.source.classes:
            raise FlopbenchError(f"the classes of {name} for training are others than for validation")
    else:
        training, validation = map(Numbered, open_folders(_folder(name)))
    seen = recipe.evaluation
    loading = Loading(world, _workers(workers, world), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    transform = evaluation_transform(recipe.image_size, seen.crop, seen.interpolation, loading.mean)
    return FileData(training, validation, transform, loading, recipe)


def open_validation_files(
    name: str,
    *,
    image_size: tuple[int, int],
    world: World,
    crop: float,
    interpolation: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    num_classes: int | None,
    workers: int | None,
) -> FileValidation:
    """A set to measure accuracy on; see `flopbench.training.data.open_validation`."""
    if timm_sets.is_timms(name):
        split = timm_sets.open_set(name, "validation", num_classes)
    else:
        split = Numbered(open_validation_folder(_folder(name), num_classes))
    loading = Loading(
        world, _workers(workers, world), mean or IMAGENET_DEFAULT_MEAN, std or IMAGENET_DEFAULT_STD
    )
    return FileValidation(split, evaluation_transform(image_size, crop, interpolation, loading.mean), loading)


def _folder(name: str) -> Path:
    path = Path(name)
    if len(path.parts) == 1 and not path.exists():
        raise unknown("data set or folder", name, SETS)
    return path


def _workers(asked: int | None, world: World) -> int:
    return workers_for(world) if asked is None else asked


def _info(split: Split, readers: int | None = None) -> DataInfo:
    """What a record says of a split; `readers` if it is a stream."""
    images, name, called, classes, digest = split.source
    return DataInfo(
        name=name,
        split=called,
        images=len(images),
        classes=len(classes),
        digest=digest,
        readers=readers if isinstance(split, Streamed) else None,
    )
