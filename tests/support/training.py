"""A tiny network, its recipe and random images, as all trainings of the tests have them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from flopbench.models import create_model
from flopbench.recipes import Recipe
from flopbench.results.trainings import DataInfo
from flopbench.training.batches import Batch
from flopbench.training.world import World

WORLD = World(torch.device("cpu"))
CLASSES = 4


class Noise:
    """Random images, brighter the larger their label is, in an order that the seed and the epoch say."""

    info = DataInfo(name="noise", split="training", images=24, classes=CLASSES)
    validation = DataInfo(name="noise", split="validation", images=10, classes=CLASSES)
    classes = tuple("abcd")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, world: World = WORLD, size: int = 8) -> None:
        self.world = world
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(24) % CLASSES
        noise = torch.randn(24, 3, size, size, generator=generator)
        self.images = noise + 2 * self.labels.view(-1, 1, 1, 1)

    def steps(self, batch_size: int) -> int:
        """Whole batches per epoch."""
        return 24 // batch_size

    def training(
        self, epoch: int, start: int, batch_size: int, *, seed: int, mirror: float | None = None
    ) -> Iterator[Batch]:
        """Shuffled anew per epoch; `mirror` mirrors all images or none."""
        order = torch.randperm(24, generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for step in range(start, self.steps(batch_size)):
            own = order[step * batch_size : (step + 1) * batch_size][self.world.rank :: self.world.size]
            images = self.images[own].to(self.world.device)
            yield Batch(images.flip(-1) if mirror else images, self.labels[own].to(self.world.device))

    def validating(self, batch_size: int) -> Iterator[Batch]:
        """The first images."""
        for own in torch.arange(self.validation.images)[self.world.rank :: self.world.size].split(batch_size):
            yield Batch(self.images[own].to(self.world.device), self.labels[own].to(self.world.device))


def recipe(**fields: Any) -> Recipe:
    """Everything that has a state or draws random numbers is on: 3 steps per epoch, 3 epochs."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "title": "for tests",
        "epochs": 3,
        "batch_size": 8,
        "image_size": (8, 8),
        "ema": 0.9,
        "optimiser": {"name": "adamw", "learning_rate": 1e-2, "weight_decay": 0.05, "clip": 1.0},
        "schedule": {"warmup_epochs": 1, "per": "step"},
        "mix": {"mixup": 0.8, "cutmix": 1.0},
        "loss": {"smoothing": 0.1},
        "evaluation": {"every_epochs": 2},
    }
    return Recipe.model_validate(settings | fields)


def network(name: str = "vit_ti16.flop", seed: int = 0, **options: Any) -> nn.Module:
    """A transformer of two blocks that drop paths."""
    torch.manual_seed(seed)
    sizes = {"patch_size": 4, "width": 16, "depth": 2, "heads": 2, "drop_path": 0.3, "layer_scale": 0.5}
    return create_model(name, image_size=8, num_classes=CLASSES, **sizes | options)
