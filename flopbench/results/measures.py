"""How right predictions are: the figure of each task that decides, as data, and the words for it."""

from dataclasses import dataclass
from typing import Literal

from flopbench.models.tasks import TASKS, Task, TaskName


@dataclass(frozen=True)
class Measure:
    """The one figure, a share, that says how right the predictions of a task are.

    Attributes:
        name: what people call it, beside a figure.
        full: what it is called by itself.
        task: whose it is.
        field: of `Scores`, and of the columns of frames.
        of: what has a prediction each.
        said: what a network does that has so much of it (`{}`) on images, or
        most: has the most of several;
        on: and what comes before these images.
    """

    name: str
    full: str
    task: Task
    field: Literal["top1", "miou"]
    of: Literal["images", "pixels"]
    said: str
    most: str
    on: Literal["of", "on"]

    def __str__(self) -> str:
        return self.name


TOP1 = Measure(
    "top-1",
    "top-1 accuracy",
    TASKS["classification"],
    "top1",
    "images",
    "gets {} right",
    "gets the most right, {}",
    "of",
)
MIOU = Measure(
    "mIoU",
    "mIoU",
    TASKS["segmentation"],
    "miou",
    "pixels",
    "has {} mIoU",
    "has the highest mIoU, {}",
    "on",
)

MEASURES: dict[TaskName, Measure] = {measure.task.name: measure for measure in (TOP1, MIOU)}
"""Of the tasks that networks are trained for and evaluated on."""

PIXELS = (
    "mIoU is the mean over the classes of the pixels that are rightly said to be of a class over those that "
    "are of it or are said to be, in all images together. Of a segmentation every pixel has a prediction, "
    "and in the mirror image its own place there."
)
"""What a reader of a segmentation's figures has to know."""
