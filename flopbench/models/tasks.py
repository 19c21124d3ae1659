"""What networks are asked for beside the class of an image, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

TaskName = Literal["classification", "features", "segmentation", "depth", "normals"]

LearntTask = Literal["classification", "segmentation"]
"""Those that recipes train networks for, of sets with labels."""

DecoderName = Literal["linear", "conv"]
"""How features become pixels: by a linear map of each cell of the grid, or by a light convolutional decoder.
Both end with a bilinear interpolation to the image's size."""

LINEAR: DecoderName = "linear"
"""The usual one."""

Kind = Literal["invariant", "feature", "scalars", "vectors"]
"""How a group acts on what a network gives (`flopbench.symmetries.actions`): not at all; as on the features
that it has within; on pixels, whose values stay as they are; or on pixels and the vectors that they hold."""


@dataclass(frozen=True)
class Task:
    """What a network gives.

    Attributes:
        name: that of `create_model`.
        kind: how a group acts on it: f(g x) = g f(x).
        channels: of a pixel; None where these are the classes.
    """

    name: TaskName
    kind: Kind
    channels: int | None = None

    @property
    def classifies(self) -> bool:
        """Whether it is that of the paper, which needs no grid at the network's end."""
        return self.name == "classification"

    @property
    def decodes(self) -> bool:
        """Whether it has a value per pixel, so that `decoder=` is one of its options."""
        return self.kind in ("scalars", "vectors")

    @property
    def answer(self) -> str:
        """What it gives, in a word: logits, features, segmentation."""
        return "logits" if self.classifies else self.name

    @property
    def promise(self) -> str:
        """What networks with a symmetry are said to be: invariant, or equivariant."""
        return "invariant" if self.kind == "invariant" else "equivariant"


CLASSIFICATION = Task("classification", "invariant")
"""Logits `[B, classes]`."""

TASKS: dict[TaskName, Task] = {
    task.name: task
    for task in (
        CLASSIFICATION,
        Task("features", "feature"),
        Task("segmentation", "scalars"),
        Task("depth", "scalars", channels=1),
        Task("normals", "vectors", channels=3),
    )
}
"""By name. Features are `[B, H/stride, W/stride, C]`; segmentations are logits `[B, classes, H, W]`, depths
logarithms `[B, 1, H, W]`, and normals unit vectors `[B, 3, H, W]`, x to the right and y down.
"""
