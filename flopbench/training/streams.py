"""Sets whose images come as a stream, in the order of a reader of timm's: `wds/`, `tfds/`, `hfids/`.

What is in a batch is a function of the seed and the epoch for so many processes and workers. Training goes on
in the middle of an epoch by reading what came before once more. Images that cannot be read are left out, with
a warning of timm's; an evaluation then says so and ends.
"""

from collections.abc import Iterator
from itertools import islice

from flopbench.recipes import Recipe
from flopbench.training.augmenting import Augmenter
from flopbench.training.batches import Batch, whole_steps
from flopbench.training.files import info_of, scale_of
from flopbench.training.loading import Source, Stream, Transform, loaded
from flopbench.training.timm_sets import Opened
from flopbench.training.world import World


class StreamValidation:
    """A validation split that comes as a stream; see `flopbench.training.data.ValidationData`."""

    def __init__(
        self,
        source: Source,
        opened: Opened,
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
        self._source = source
        self._opened = opened
        self._transform = transform
        self._world = world
        self._workers = workers
        self._scale = scale_of(mean, world), scale_of(std, world)

    def validating(self, batch_size: int) -> Iterator[Batch]:
        """This process's share of the validation images, up to `batch_size` at a time."""
        images = self._opened()
        # Every process reads all and keeps its share, in one worker at most: the shares that timm makes have
        # some images twice, or leave some out.
        images.reader.dist_rank, images.reader.dist_num_replicas = 0, 1
        workers = min(self._workers, 1)
        images.set_loader_cfg(num_workers=workers)
        stream = Stream(
            self._source._replace(images=images),
            self._transform,
            (0,),
            every=(self._world.rank, self._world.size),
            expected=self.validation.images,
        )
        yield from loaded(stream, self._world, workers, self._scale, batch_size=batch_size)


class StreamData(StreamValidation):
    """Both splits of a set that comes as a stream; see `flopbench.training.data.Data`."""

    def __init__(
        self,
        training: tuple[Source, Opened],
        validation: tuple[Source, Opened],
        transform: Transform,
        recipe: Recipe,
        world: World,
        workers: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        super().__init__(*validation, transform, world, workers, mean, std)
        self._training, self._opened_training = training
        self.info = info_of(self._training)
        self._augmenter = Augmenter(recipe, mean, world.device)

    def steps(self, batch_size: int) -> int:
        """Whole global batches per epoch."""
        return whole_steps(self.info.name, self.info.images, batch_size, self._world)

    def training(
        self, epoch: int, start: int, batch_size: int, *, seed: int, mirror: float | None = None
    ) -> Iterator[Batch]:
        """This process's share of every global batch of an epoch, from step `start` on."""
        steps = self.steps(batch_size)
        own = batch_size // self._world.size
        images = self._opened_training(is_training=True, batch_size=own, seed=seed)
        images.set_loader_cfg(num_workers=self._workers)
        images.set_epoch(epoch)
        stream = Stream(
            self._training._replace(images=images),
            self._augmenter.transform(mirror),
            (seed, epoch, self._world.rank),
        )
        batches = loaded(stream, self._world, self._workers, self._scale, batch_size=own, seed=seed + epoch)
        for step, (pixels, labels) in enumerate(islice(batches, steps)):
            if step >= start:
                yield Batch(self._augmenter.erased(pixels, seed, epoch, step, self._world.rank), labels)
