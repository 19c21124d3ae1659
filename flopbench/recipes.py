"""Recipes and races in TOML: how networks are trained, and which against which. Imports no torch."""

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from flopbench.cells import ImageSize
from flopbench.errors import FlopbenchError, unknown
from flopbench.frozen import Frozen
from flopbench.kernels import Impl
from flopbench.models.tasks import CLASSIFICATION, LearntTask
from flopbench.modes import DType, TorchMode
from flopbench.suites import available_race_suites, is_race_suite, suite_file
from flopbench.toml import parse, read_toml

Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Optimiser(Frozen):
    """What updates the weights: a name of `timm.optim`, e.g. lamb or adamw, and its settings.

    `clip` bounds the norm of all gradients together. Weights of one dimension, class tokens and embeddings of
    positions do not decay.
    """

    name: str
    learning_rate: Positive
    weight_decay: NotNegative = 0.0
    eps: Positive = 1e-8
    betas: tuple[Fraction, Fraction] | None = None
    clip: Positive | None = None


class Schedule(Frozen):
    """The learning rate over the epochs: it rises linearly from `warmup_rate`, then falls by a cosine to
    `final_rate`; a new one per epoch, or per step.

    The cosine is one of the whole training, whose beginning the warm-up takes the place of, or with
    `whole_cosine` one of what follows the warm-up.
    """

    warmup_epochs: NotNegative = 0.0
    warmup_rate: NotNegative = 1e-6
    final_rate: NotNegative = 0.0
    whole_cosine: bool = False
    per: Literal["epoch", "step"] = "epoch"


class Augmentation(Frozen):
    """What happens to images of the training set.

    `crop_scale` is the share of the image's area that a random resized crop has, None for no such crop;
    `shift` moves the image by up to so many pixels each way instead, background coming in. `mirror` is
    how many images are mirrored, `policy` one of timm's (`3a`, `rand-m9-mstd0.5-inc1`), `erasing` how many
    have a rectangle of noise, `repeats` how often an image comes within an epoch, in as many versions. Sets
    that fit into memory take `shift` and `mirror` alone.
    """

    crop_scale: tuple[Fraction, Fraction] | None = None
    shift: Annotated[int, Field(ge=0, le=64)] = 0
    mirror: Fraction = 0.5
    policy: str | None = None
    colour_jitter: NotNegative = 0.0
    erasing: Fraction = 0.0
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    repeats: Annotated[int, Field(ge=1, le=16)] = 1


class Mix(Frozen):
    """Mixup and CutMix of a batch with its reverse: the parameters α of their beta distributions (0 is none),
    and how often it is CutMix where both could be.
    """

    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    switch: Fraction = 0.5


class Loss(Frozen):
    """Cross-entropy of soft labels, or binary cross-entropy of every class with targets above 0 set to 1."""

    name: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Evaluation(Frozen):
    """When and how accuracy is measured: every so many epochs and at the end, on images that are resized so
    that a centre crop of the recipe's size is `crop` of their shorter side.

    `images` of the validation set are looked at, spread evenly over it and always the same; None: all. Sets
    that fit into memory alone can leave some out.
    """

    every_epochs: Positive = 1.0
    images: Annotated[int, Field(ge=1)] | None = None
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


class Expected(Frozen):
    """What somebody reached: top-1 in per cent, and where that is to be read."""

    top1: Annotated[float, Field(ge=0, le=100)]
    source: str


# What networks are called with beside their options.
_NO_OPTIONS = frozenset({"name", "image_size", "num_classes", "impl", "task"})


class Recipe(Frozen):
    """How a network is trained: a TOML file of these fields.

    Or of `extends = "NAME"`, a recipe's name or file, and what differs from that one; what was `expected` of
    it does not hold here.

    Attributes:
        name: that of the file.
        title: what it is for.
        task: what is learnt.
        source: where its settings are from.
        epochs: over the training set; a part of one is allowed.
        batch_size: images per step, over all devices and accumulated ones.
        image_size: pixels, (height, width).
        dtype: of the arithmetic, as in cells; weights stay in fp32.
        mode: eager, compile or compile-blocks.
        impl: of our networks' operations.
        ema: decay of the average of weights that is evaluated beside them; None for no average.
        options: of the network's class, by patterns of model names: `{"vit_b16*": {"drop_path": 0.1}}`. Those
            of every pattern that fits hold, the later ones first.
        expected: the accuracy that a model reached by it elsewhere, by its name.
    """

    name: str
    title: str
    source: str = ""
    task: LearntTask = "classification"
    epochs: Annotated[float, Field(gt=0, le=1e6)]
    batch_size: Annotated[int, Field(ge=1, le=2**20)]
    image_size: ImageSize
    dtype: DType = "fp32"
    mode: TorchMode = "eager"
    impl: Impl = "auto"
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    optimiser: Optimiser
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    mix: Mix = Mix()
    loss: Loss = Loss()
    evaluation: Evaluation = Evaluation()
    options: dict[str, dict[str, Any]] = {}
    expected: dict[str, Expected] = {}

    @model_validator(mode="after")
    def _rises_before_its_end(self) -> Self:
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs must be fewer than the {self.epochs:g} epochs, "
                f"got {self.schedule.warmup_epochs:g}; for so short a training set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _options_are_of_the_class(self) -> Self:
        for pattern, options in self.options.items():
            if taken := sorted(_NO_OPTIONS & options.keys()):
                raise ValueError(
                    f"options of {pattern}: {taken[0]} is what the data or the recipe's field say"
                )
        return self

    @model_validator(mode="after")
    def _targets_are_of_the_task(self) -> Self:
        if self.task != CLASSIFICATION.name:
            if self.mix.mixup or self.mix.cutmix:
                raise ValueError(f"mix is of images that have one label each: leave it out of a {self.task}")
            if self.loss.name != "cross-entropy":
                raise ValueError(f"loss.name of a {self.task} must be cross-entropy, got {self.loss.name}")
        return self

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change when anything changes that a result depends on."""
        left_out = {"name", "title", "source", "expected", "evaluation"}
        if self.task == CLASSIFICATION.name:
            # As before there were others.
            left_out.add("task")
        content = self.model_dump_json(exclude=left_out)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def lasting(self, epochs: float) -> dict[str, Any]:
        """The overrides by which it takes so many epochs: what it counts in epochs changes with them."""
        factor = epochs / self.epochs
        return {
            "epochs": epochs,
            "schedule": {"warmup_epochs": self.schedule.warmup_epochs * factor},
            "evaluation": {"every_epochs": self.evaluation.every_epochs * factor},
        }

    def options_of(self, model: str) -> dict[str, Any]:
        """What the class of a model is called with, beside its size."""
        found: dict[str, Any] = {}
        for pattern, options in self.options.items():
            if fnmatchcase(model, pattern):
                found |= options
        return found


RIVALS = ("mirror", "wide", "half-width", "half-depth")
"""Who may run beside X and E(X): X trained with mirrored images, evaluated on both (where the recipe mirrors,
that is X itself); E(X) as wide as gives it X's MACs; X with half its MACs by its width, or by its depth."""

Rival = Literal["mirror", "wide", "half-width", "half-depth"]


class Race(Frozen):
    """One pair on one set of data by one recipe, with rivals, over several seeds.

    Attributes:
        recipe: its name or file.
        pair: the candidate, or CANDIDATE@BASELINE.
        data: the name of a data set, see `flopbench.training.data`.
        rivals: who else runs.
        seeds: how many; each trains every entrant once, in an order that alternates.
        target: top-1, or mIoU of a segmentation, in per cent, whose time is told; None: what every seed of
            the baseline reached.
        epochs: in place of the recipe's; what it counts in epochs changes with them.
        overrides: fields of the recipe that are others here, tables within tables.
    """

    recipe: str
    pair: str
    data: str
    rivals: tuple[Rival, ...] = ()
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    target: Annotated[float, Field(gt=0, lt=100)] | None = None
    epochs: Positive | None = None
    overrides: dict[str, Any] = {}

    def load_recipe(self) -> Recipe:
        """What it is run by.

        Raises:
            FlopbenchError: no such recipe, or a mistake in it or in what is other here.
        """
        recipe = load_recipe(self.recipe, self.overrides)
        return recipe if self.epochs is None else load_recipe(recipe, recipe.lasting(self.epochs))


class RaceSuite(Frozen):
    """A suite file of races: those of its list, each with what `[defaults]` says and it does not."""

    name: str
    title: str
    description: str = ""
    races: Annotated[tuple[Race, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(defaults := data.get("defaults"), dict):
            races = [
                {**defaults, **race} if isinstance(race, dict) else race for race in data.get("races", ())
            ]
            return {**{key: value for key, value in data.items() if key != "defaults"}, "races": races}
        return data


def load_race_suite(name_or_path: str | Path) -> RaceSuite:
    """A suite of races by its name (`race-small`) or by the path of a TOML file.

    Raises:
        FlopbenchError: no such suite, not one of races, or a mistake in it, with the place and the remedy.
    """
    path = suite_file(name_or_path, available_race_suites())
    raw = read_toml(path)
    if not is_race_suite(raw):
        raise FlopbenchError(
            f"{path.name} is no suite of races: flopbench run --suite {name_or_path} runs it"
        )
    return parse(RaceSuite, {**raw, "name": path.stem}, path.name)


def recipe_folder() -> Path:
    """Where the recipes that ship with flopbench lie."""
    return Path(__file__).parent / "data" / "recipes"


def available_recipes() -> dict[str, Path]:
    """Name → file of every recipe that ships with flopbench."""
    return {path.stem: path for path in sorted(recipe_folder().glob("*.toml"))}


def load_recipe(recipe: str | Path | Recipe, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by its name (`deit3-400`), by the path of a TOML file, or another one with changes.

    Args:
        recipe: which.
        overrides: fields that are others, tables within tables: `{"optimiser": {"learning_rate": 1e-3}}`.
            What was `expected` of the recipe then does not hold any more.

    Raises:
        FlopbenchError: no such recipe, not TOML, or a mistake in it, with the place and the remedy.
    """
    if isinstance(recipe, Recipe):
        name, where, own = recipe.name, f"recipe {recipe.name}", recipe.model_dump()
    else:
        path = _file_of(recipe)
        name, where, own = path.stem, path.name, _read(path)
    if overrides:
        own = {**own, "expected": {}}
    return parse(Recipe, {**merged(own, overrides or {}), "name": name}, where)


def _file_of(name_or_path: str | Path) -> Path:
    known = available_recipes()
    path = known.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        if path.suffix == ".toml" or len(path.parts) > 1:
            raise FlopbenchError(f"no recipe file at {path}")
        raise unknown("recipe", str(name_or_path), known)
    return path


def _read(path: Path, before: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe's tables, over those of the recipe that it `extends`, whose results are not its own."""
    own = read_toml(path)
    base = own.pop("extends", None)
    if base is None:
        return own
    if not isinstance(base, str):
        raise FlopbenchError(f"{path.name}: extends must be the name or the file of a recipe, got {base!r}")
    beside = path.parent / base
    file = beside if beside.is_file() else _file_of(base)
    if file in (*before, path):
        raise FlopbenchError(f"{path.name}: recipes extend one another in a circle, over {file.name}")
    return merged({**_read(file, (*before, path)), "expected": {}}, own)


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with changes, table by table; neither is changed itself."""
    result = dict(table)
    for key, value in changes.items():
        inner = result.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[key] = merged(inner, value) if both else value  # pyright: ignore[reportArgumentType]
    return result
