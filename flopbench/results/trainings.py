"""The records of what was evaluated, trained and raced: frozen, typed, and the schema of what is on disk."""

from statistics import median
from typing import Annotated, Any, Literal

from pydantic import Field

from flopbench.frozen import Frozen
from flopbench.models.tasks import TaskName
from flopbench.recipes import Race, Recipe
from flopbench.results.measures import MEASURES, MIOU, TOP1, Measure
from flopbench.results.records import (
    SCHEMA,
    Deployment,
    Environment,
    Finite,
    Flag,
    Implemented,
    Interval,
    Schema,
    Status,
    Symmetries,
)

Share = Annotated[float, Field(ge=0, le=1)]


class DataInfo(Frozen):
    """A data set as a record names it: without a path of the machine.

    `images` and `classes` are how many, `digest` twelve hexadecimal digits of the content (sets that fit into
    memory) or of the files' names (folders), `left_out` what was left out and why: reason → images, `readers`
    how many workers read a stream, for its order depends on that. `mirror_asymmetry` is
    how far the images are from those of a mirror-symmetric distribution: the antisymmetric share of the
    energy of a class's mean image, the mean over the classes; None where it was not asked for. `oriented`
    says whether a mirrored image is none of its class any more, as with digits; None where nobody said.
    `task` is what its labels are for.
    """

    name: str
    split: str
    images: int
    classes: int
    digest: str | None = None
    left_out: dict[str, int] = {}
    readers: int | None = None
    mirror_asymmetry: Share | None = None
    oriented: bool | None = None
    task: TaskName = "classification"


class NetworkInfo(Frozen):
    """What a file of weights says of their network: what `create_model` is to be called with, and images.

    `options` are those of the network's class, of which `task`, what it was trained for, stands by itself.
    `mean` and `std` are what images are normalised by, per channel, of values between 0 and 1. `recipe` is
    what it was trained by, and `step` how many steps.
    """

    name: str
    task: TaskName = "classification"
    options: dict[str, Any] = {}
    image_size: tuple[int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: str = ""
    step: int | None = None


class Scores(Finite):
    """Of predictions, one per image, or of a segmentation one per pixel.

    `top1` and `top5` are the shares that are right at once and among the five likeliest (None where there are
    no more than five classes, or nobody counted), `nll` the mean negative log-likelihood of the right class,
    in nats. `miou` is of a segmentation alone: the mean over the classes of the pixels that are rightly said
    to be of a class over those that are of it, or are said to be, in all images together.
    """

    top1: Share
    top5: Share | None = None
    nll: float
    miou: Share | None = None

    @property
    def measure(self) -> Measure:
        """Which of them decides."""
        return TOP1 if self.miou is None else MIOU

    @property
    def figure(self) -> float:
        """That of the measure."""
        return self.top1 if self.miou is None else self.miou


class Accuracy(Finite):
    """What a network makes of a data set's images and of their mirror images.

    `flip_consistency` is the share of images whose prediction is that of their mirror image, of a
    segmentation the share of pixels whose prediction is that of their own place in the mirror image.
    `averaged` is of the mean probabilities of both, mirror test-time augmentation, at twice the cost; None
    where it was not asked for.
    """

    images: int
    plain: Scores
    mirrored: Scores
    flip_consistency: Share
    averaged: Scores | None = None


class EvaluationRecord(Implemented):
    """`evaluation.json`: a network's accuracy on a data set, and how fast it is on the same device.

    `options` are those of the network's class beside its `task`, `weights` the file's name, `weights_digest`
    twelve hexadecimal digits of its content. Images were resized so that a centre crop of `image_size` is
    `crop` of their shorter side. `throughput` is images per second of the forward pass alone at `batch_size`,
    from `samples`, seconds per call; of mirror test-time augmentation, which runs it twice, half of that.
    `seconds` is what the evaluation took with reading the images. `deployed` is there where an engine
    executed the network: it gave the outputs that are scored.
    """

    schema_: Schema = SCHEMA
    id: str
    created: str
    command: str
    name: str
    label: str
    task: TaskName = "classification"
    options: dict[str, Any] = {}
    weights: str
    weights_digest: str
    parameters: int
    macs: int | None = None
    deployed: Deployment | None = None
    data: DataInfo
    image_size: tuple[int, int]
    crop: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    accuracy: Accuracy
    batch_size: int
    dtype: str
    mode: str
    impl: str
    world_size: int = 1
    throughput: Interval | None = None
    samples: tuple[float, ...] = ()
    seconds: float
    environment: Environment
    symmetries: Symmetries = ()
    flags: tuple[Flag, ...] = ()

    @property
    def measure(self) -> Measure:
        """What its accuracy is."""
        return MEASURES[self.task]


class Point(Implemented):
    """One evaluation within a training; of a race, its trial says what ran.

    `seconds` is the time of training up to here, evaluations, compilation and checkpoints apart, `joules`
    the energy of that time where the device tells, `macs` the multiply-accumulates spent in it; `rate` images
    per second since the point before and `loss` the mean over these steps. `ema` is the accuracy of the
    averaged weights.
    """

    step: int
    samples: int
    seconds: float
    joules: float | None = None
    macs: int
    rate: float | None = None
    loss: float | None = None
    accuracy: Accuracy
    ema: Accuracy | None = None

    @property
    def best(self) -> Accuracy:
        """Of the averaged weights where there are some: what one would deploy."""
        return self.ema or self.accuracy


class TrainingInfo(Frozen):
    """`training.json`: what is trained on what. Beside it `points.jsonl` has a line per evaluation.

    `steps` are how many there are in all, `macs` multiply-accumulates that training takes per image, forward
    and backward.
    """

    schema_: Schema = SCHEMA
    id: str
    created: str
    command: str
    name: str
    label: str
    options: dict[str, Any] = {}
    seed: int
    recipe: Recipe
    recipe_digest: str
    data: DataInfo
    validation: DataInfo
    steps: int
    parameters: int
    macs: int
    world_size: int = 1
    accumulation: int = 1
    sharded: bool = False
    environment: Environment
    symmetries: Symmetries = ()

    @property
    def measure(self) -> Measure:
        """What its accuracy is."""
        return MEASURES[self.recipe.task]


Role = Literal["baseline", "candidate", "mirror", "wide", "half-width", "half-depth"]


class Entrant(Frozen):
    """Who runs in a race. `key` is its role, `mirror` its share of mirrored training images."""

    key: Role
    name: str
    label: str
    options: dict[str, Any] = {}
    mirror: float
    parameters: int
    linear_parameters: int
    macs: int


class RaceInfo(Frozen):
    """One race of a run: as it was declared, with its recipe, its data and who runs."""

    key: str
    declared: Race
    recipe: Recipe
    data: DataInfo
    validation: DataInfo
    entrants: tuple[Entrant, ...]

    @property
    def measure(self) -> Measure:
        """What decides it."""
        return MEASURES[self.recipe.task]

    def entrant(self, key: Role) -> Entrant | None:
        """The entrant of a role, if it runs."""
        return next((entrant for entrant in self.entrants if entrant.key == key), None)


class RacesInfo(Frozen):
    """`races.json`: what is raced on what. Beside it `trials.jsonl` has a line per training that ended."""

    schema_: Schema = SCHEMA
    id: str
    suite: str
    title: str
    command: str
    created: str
    environment: Environment
    world_size: int = 1
    races: tuple[RaceInfo, ...]
    symmetries: Symmetries = ()


class Inference(Finite):
    """What a trained network takes to answer, in a race's process: the seconds of calls of `images` each.

    Once it is warm, in evaluation mode, in the arithmetic and the mode that it was trained in.
    """

    images: Annotated[int, Field(ge=1)]
    seconds: Annotated[tuple[float, ...], Field(min_length=1)]

    @property
    def rate(self) -> float:
        """Images per second, by the median call; of mirror test-time augmentation it is half of that."""
        return self.images / median(self.seconds)


class Trial(Implemented):
    """One line of `trials.jsonl`: one entrant of one race trained with one seed.

    `place` counts the trials of the race in the order in which they ran. `compile_seconds` is the time before
    the clock started, in which everything that is compiled was; `wall_seconds` that of the whole trial.
    `inference` is measured when the training has ended; None in earlier records.
    """

    schema_: Schema = SCHEMA
    race: str
    entrant: Role
    seed: int
    place: int
    status: Status
    reason: str = ""
    started: str
    wall_seconds: float
    compile_seconds: float | None = None
    peak_bytes: int | None = None
    points: tuple[Point, ...] = ()
    inference: Inference | None = None
    device_state: dict[str, Any] = {}
    flags: tuple[Flag, ...] = ()

    @property
    def id(self) -> tuple[str, Role, int]:
        """What the record is about."""
        return self.race, self.entrant, self.seed
