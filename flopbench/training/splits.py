"""Two ways to read the images of a split: by their numbers in an order of our own, or as a stream in its."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from flopbench.training.batches import Batch, epoch_order, generator, share
from flopbench.training.loading import Key, Loading, Samples, Source, StreamedSamples, Transform


class Stretch(NamedTuple):
    """A part of a training: of an epoch of a seed the steps from `start` on, each of `batch_size` images over
    all processes, every image coming `repeats` times.
    """

    seed: int
    epoch: int
    start: int
    steps: int
    batch_size: int
    repeats: int


class Numbered(NamedTuple):
    """Images that are read by their numbers, in an order that the seed decides, from any step on."""

    source: Source

    def still(self, transform: Transform, batch_size: int, loading: Loading) -> Iterator[Batch]:
        """This process's share of all images, each once over all processes."""
        own = range(loading.world.rank, len(self.source.images), loading.world.size)
        keys = (
            [Key(number) for number in own[first : first + batch_size]]
            for first in range(0, len(own), batch_size)
        )
        return loading.batches(Samples(self.source, transform), batch_sampler=keys)

    def shuffled(self, transform: Transform, stretch: Stretch, loading: Loading) -> Iterator[Batch]:
        """This process's share of the batches of a training."""
        seed, epoch, start, steps, batch_size, repeats = stretch
        order = epoch_order(len(self.source.images), repeats, seed, epoch)
        places = (share(step, batch_size, loading.world) for step in range(start, steps))
        keys = (
            [
                Key(number, seed, epoch, version)
                for number, version in zip(*(part[own].tolist() for part in order), strict=True)
            ]
            for own in places
        )
        return loading.batches(Samples(self.source, transform), batch_sampler=keys)


class Streamed(NamedTuple):
    """Images that come in the order of a reader of timm's: `wds/`, `tfds/`.

    Which these are is a function of the seed and the epoch for so many processes and workers. Training goes
    on within an epoch by reading what came before once more. Images that cannot be read timm leaves out, with
    a warning: an evaluation then says so and ends.

    Attributes:
        source: the split.
        opened: opens timm's data set of it anew, with further arguments of `create_dataset`.
    """

    source: Source
    opened: Callable[..., Any]

    def still(self, transform: Transform, batch_size: int, loading: Loading) -> Iterator[Batch]:
        """This process's share of all images, each once over all processes."""
        images = self.opened()
        # Every process reads all and keeps its share, in one worker at most: the shares that timm makes have
        # some images twice, or leave some out.
        images.reader.dist_rank, images.reader.dist_num_replicas = 0, 1
        workers = min(loading.workers, 1)
        images.set_loader_cfg(num_workers=workers)
        every = loading.world.rank, loading.world.size
        expected = len(self.source.images)
        samples = StreamedSamples(
            self.source._replace(images=images), transform, (0,), every=every, expected=expected
        )
        return loading.batches(samples, batch_size=batch_size, num_workers=workers)

    def shuffled(self, transform: Transform, stretch: Stretch, loading: Loading) -> Iterator[Batch]:
        """This process's share of the batches of a training."""
        seed, epoch, start, steps, batch_size, repeats = stretch
        own = batch_size // loading.world.size
        images = self.opened(is_training=True, batch_size=own, seed=seed)
        images.set_loader_cfg(num_workers=loading.workers)
        images.set_epoch(epoch)
        key = seed, epoch, loading.world.rank
        samples = StreamedSamples(self.source._replace(images=images), transform, key, repeats=repeats)
        batches = loading.batches(samples, int(generator(*key).integers(2**62)), batch_size=own)
        return islice(batches, start, steps)


Split = Numbered | Streamed
"""The images of a split, and how they are read."""
