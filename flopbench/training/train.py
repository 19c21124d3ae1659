"""`flopbench.train`: one network trained by one recipe, from its first step or from where it was."""

import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flopbench.errors import (
    FlopbenchError,
    NothingMeasuredError,
    brief,
    in_one_line,
    out_of_memory,
    own_lines,
)
from flopbench.kernels.dispatch import observe
from flopbench.models.catalog import parse_name
from flopbench.models.factory import create_model, num_parameters
from flopbench.recipes import Recipe, load_recipe
from flopbench.report.trainings import Trainings
from flopbench.results.files import as_json
from flopbench.results.folder import name_of
from flopbench.results.training_folder import CHECKPOINT, TrainingFolder
from flopbench.results.trainings import NetworkInfo, TrainingInfo
from flopbench.runner.begin import device_kind
from flopbench.symmetries.registry import others
from flopbench.timing.environment import choose_device, describe
from flopbench.training import state
from flopbench.training.data import Data, open_data
from flopbench.training.loop import Trainer
from flopbench.training.preparing import build, building
from flopbench.training.session import Session, Spent, Watch
from flopbench.training.world import World, begun_together, world

# What a training goes on with only where it is the same; and what is told where it is another.
_THE_SAME = ("device", "device_name", "torch", "cuda")
_TOLD = ("driver", "triton", "compiler", "kernels", "cpu", "cpu_capability", "threads", "flopbench")

_LARGEST_SEED = 2**63 - 1


class Training(Trainings):
    """What `train` gives: the training's folder, and the network in it.

        training = flopbench.train("proxy-cpu", "vit_ti16.flop", "digits", epochs=3)
        print(training)
        training.frame()[["step", "seconds", "top1"]]
        logits = training.model(images)

    Attributes:
        path: the folder.
        model: the network as it was trained last, on its device.
    """

    def __init__(self, folder: TrainingFolder, model: nn.Module) -> None:
        super().__init__([folder])
        self.path = folder.path
        self.model = model


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM while a training ran; its message says how it goes on, `path` is its folder."""

    def __init__(self, path: Path, trainer: Trainer, *, data: str, saved: bool) -> None:
        where = (
            f"saved after step {trainer.step} of {trainer.steps}"
            if saved
            else "not saved since its last checkpoint"
        )
        command = shlex.join(["flopbench", "train", "--resume", str(path), "--data", data])
        super().__init__(f"interrupted, {where}; continue with: {command}")
        self.path = path


@dataclass(frozen=True)
class Asked:
    """What is to be trained, and how.

    `data` is a name as `flopbench.training.data` reads it, `checkpointing` and `workers` change no result.
    """

    recipe: Recipe
    model: str
    data: str
    seed: int = 0
    accumulation: int = 1
    sharded: bool = False
    checkpointing: bool = False
    workers: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the network's class is called with."""
        return self.recipe.options_of(self.model)


def train(
    recipe: str | Path | Recipe | None = None,
    model: str | None = None,
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    results: str | Path | None = "results",
    resume: str | Path | None = None,
    seed: int | None = None,
    device: str | None = None,
    accumulation: int | None = None,
    checkpointing: bool = False,
    sharded: bool | None = None,
    workers: int | None = None,
    watch: Watch | None = None,
    command: str = "flopbench.train",
    **changes: Any,
) -> Training:
    """Train a network by a recipe; see `docs/training.md`.

    Under torchrun every process calls it alike. Ctrl-C and SIGTERM save a checkpoint first, and whatever else
    ends the process costs some minutes of training: `resume` goes on, on a CPU to the bit as if nothing had
    happened.

    Args:
        recipe: its name or file, or the recipe itself.
        model: the network's name, as `create_model` reads it.
        data: the name of a set, or a folder: see `flopbench.training.data`.
        out: the folder to make; by default one under `results` that is called after what is trained.
        results: see `out`; None for a temporary folder, which lasts as long as what is returned.
        resume: the folder of a training to go on with. What it was begun with need not be said again, but for
            a folder of data, which no record names; and what is said has to be the same.
        seed: of the initial weights and all that is random; 0 by default.
        device: cpu or cuda; by default a GPU if there is one.
        accumulation: parts that each process's share of a batch is computed in, one after another.
        checkpointing: compute activations again in the backward pass instead of keeping them.
        sharded: spread weights and the optimiser's state over the processes (FSDP2).
        workers: processes that read images; by default what suits the machine.
        watch: who is told how it goes; by default nobody.
        command: what the record names as its origin.
        **changes: fields of the recipe that are others here: `epochs=3`, `optimiser={"learning_rate": 1e-3}`.

    Raises:
        FlopbenchError: something is wrong with what is asked, another thing is resumed than was begun, the
            training diverged, does not fit into memory, or cannot be written.
        Stopped: Ctrl-C or SIGTERM.
    """
    begun = TrainingFolder.open(Path(resume)) if resume is not None else None
    if begun is not None and out is not None:
        raise FlopbenchError(f"a training goes on in its own folder: leave out {'--out'} or --resume")
    asked = Asked(
        **_asked(begun and begun.info, recipe, model, data, changes),
        seed=_first(seed, begun and begun.info.seed, 0),
        accumulation=_first(accumulation, begun and begun.info.accumulation, 1),
        sharded=_first(sharded, begun and begun.info.sharded, False),
        checkpointing=checkpointing,
        workers=workers,
    )
    if not 0 <= asked.seed <= _LARGEST_SEED:
        raise FlopbenchError(f"seed must be from 0 to 2^63 − 1, got {brief(asked.seed)}")
    check_network(asked.recipe, asked.model)
    kind = choose_device(device_kind(device, "device") or (begun and begun.info.environment.device))
    with world(kind) as here:
        found = _open(asked, here, given=data is not None)
        trainer = _trainer(asked, found, here)
        info = _info(asked, trainer, found, command)
        if begun is not None:
            _check(begun, info)
        folder = begun or begun_together(TrainingFolder, here, info, _path(results), _path(out))
        with folder.locked() if here.first else nullcontext():
            ended = _run(asked, folder, trainer, found, watch or Watch())
    if not ended:
        raise Stopped(folder.path, trainer, data=asked.data, saved=True)
    return Training(folder, trainer.model)


def check_network(recipe: Recipe, model: str) -> None:
    """See that there is such a network, for a recipe's images and with its options.

    Raises:
        FlopbenchError: there is not.
    """
    name, options = parse_name(model), recipe.options_of(model)
    if name.is_layer:
        raise FlopbenchError(f"{model} is a single layer, which classifies nothing: train a network")
    if name.version.averaged:
        raise FlopbenchError(
            f"{model} averages what a trained {name.base} says: train {name.base}, and evaluate it as {model}"
        )
    name.check_image_size(recipe.image_size, options)
    if name.spec is not None:
        # Shapes alone, which take neither memory nor time.
        with torch.device("meta"):
            create_model(model, **building(model, options, recipe, 1000))


def _asked(
    begun: TrainingInfo | None,
    recipe: str | Path | Recipe | None,
    model: str | None,
    data: str | Path | None,
    changes: Mapping[str, Any],
) -> dict[str, Any]:
    """What is trained by what on what, from what was said or else recorded."""
    recipe, model = recipe or (begun and begun.recipe), model or (begun and begun.name)
    data = data or (begun and begun.data.name)
    if recipe is None or model is None or data is None:
        raise FlopbenchError(
            "a training needs a recipe, a model and data, e.g. "
            "flopbench train proxy-cpu --model vit_ti16.flop --data digits"
        )
    return {"recipe": load_recipe(recipe, changes), "model": model, "data": str(data)}


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _open(asked: Asked, here: World, *, given: bool) -> Data:
    try:
        return open_data(asked.data, asked.recipe, here, workers=asked.workers)
    except FlopbenchError as error:
        if given:
            raise
        raise FlopbenchError(f"{error}; the record names no folders: say --data again") from None


def _trainer(asked: Asked, data: Data, here: World) -> Trainer:
    """The network with the weights of its seed, ready to be trained."""
    model = build(asked.model, asked.options, asked.recipe, len(data.classes), asked.seed)
    return Trainer(
        asked.recipe,
        model.to(here.device),
        data,
        here,
        seed=asked.seed,
        accumulation=asked.accumulation,
        checkpointing=asked.checkpointing,
        sharded=asked.sharded,
    )


def _info(asked: Asked, trainer: Trainer, data: Data, command: str) -> TrainingInfo:
    name, environment = parse_name(asked.model), describe(trainer.world.kind)
    created = datetime.now(UTC)
    return TrainingInfo(
        id=name_of(created, "train", asked.model, data.info.name, asked.recipe.name, environment.device),
        created=created.isoformat(timespec="seconds"),
        command=command,
        name=asked.model,
        label=name.label_with(asked.options),
        options=asked.options,
        seed=asked.seed,
        recipe=asked.recipe,
        recipe_digest=asked.recipe.digest,
        data=data.info,
        validation=data.validation,
        steps=trainer.steps,
        parameters=num_parameters(trainer.model),
        macs=trainer.macs,
        world_size=trainer.world.size,
        accumulation=asked.accumulation,
        sharded=asked.sharded,
        environment=environment,
        symmetries=others([name.version.about]),
    )


def _check(begun: TrainingFolder, now: TrainingInfo) -> None:
    """See that going on here is going on with the same training.

    Raises:
        FlopbenchError: with every difference named.
    """
    then, now = begun.info, TrainingInfo.model_validate_json(as_json(now))
    found = [
        f"{what}: {one} → {other}"
        for (what, one), other in zip(_identity(then), dict(_identity(now)).values(), strict=True)
        if one != other
    ]
    found += then.environment.differences(now.environment, _THE_SAME)
    if found:
        raise FlopbenchError(f"cannot resume {begun.path}: {'; '.join(found)}")
    if told := then.environment.differences(now.environment, _TOLD):
        warnings.warn(
            f"{begun.path} goes on under other conditions, so that its results may differ in their last "
            f"digits: {'; '.join(told)}",
            stacklevel=3,
        )


def _identity(info: TrainingInfo) -> list[tuple[str, Any]]:
    """What makes a training that training, by the names of options and of the recipe's fields."""
    recipe = info.recipe.model_dump(exclude={"name", "title", "source", "expected", "options"})
    found: list[tuple[str, Any]] = [("model", info.name), ("options", info.options), ("seed", info.seed)]
    for field, value in recipe.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        found += [(f"{field}.{key}".rstrip("."), setting) for key, setting in inner]
    found += [(f"data.{key}", value) for key, value in info.data.model_dump().items()]
    found += [(f"validation.{key}", value) for key, value in info.validation.model_dump().items()]
    found += [("processes", info.world_size), ("accumulation", info.accumulation), ("sharded", info.sharded)]
    return found


def _run(asked: Asked, folder: TrainingFolder, trainer: Trainer, data: Data, watch: Watch) -> bool:
    """Train in a folder, from its checkpoint if it has one.

    Returns:
        Whether it came to its end.

    Raises:
        Stopped: before it could be saved.
    """
    if trainer.world.first:
        folder.tidy()
    watch = watch if trainer.world.first else Watch()
    has_one = trainer.world.share((folder.path / CHECKPOINT).is_file())
    spent = Spent(**state.load(folder.path, trainer)) if has_one else Spent()
    network = NetworkInfo(
        name=asked.model,
        task=asked.recipe.task,
        options=asked.options,
        image_size=asked.recipe.image_size,
        num_classes=len(data.classes),
        mean=data.mean,
        std=data.std,
    )
    watch.begin(folder.info, folder.path, trainer.step)
    if trainer.step == trainer.steps:
        return True
    try:
        with _failing(trainer, asked.model):
            with observe() as ran:
                trainer.warm_up()
            return Session(trainer, folder, network, spent, ran, watch).run()
    except KeyboardInterrupt:
        raise Stopped(folder.path, trainer, data=asked.data, saved=False) from None


@contextmanager
def _failing(trainer: Trainer, model: str) -> Iterator[None]:
    """Say what helps where the device has too little memory, and where it went wrong in somebody's network.

    Raises:
        FlopbenchError: then.
    """
    try:
        yield
    except Exception as error:
        if (line := out_of_memory(error)) is None:
            if isinstance(error, FlopbenchError) or not own_lines(error):
                raise
            raise NothingMeasuredError(f"{model} cannot be trained: {in_one_line(error)}") from error
        raise FlopbenchError(
            f"out of memory with {trainer.part} images at once: accumulate over more parts (--accumulate "
            f"{2 * trainer.accumulation}), recompute activations (--checkpointing) or choose a smaller batch "
            f"({line})"
        ) from error
