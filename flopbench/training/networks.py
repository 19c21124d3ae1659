"""Networks with trained weights, from wherever these come: our own files, the authors', timm's."""

import hashlib
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError, in_one_line
from flopbench.kernels import Impl
from flopbench.kernels.dispatch import select
from flopbench.models.averaged import Averaged
from flopbench.models.catalog import ModelName, Spec, parse_name
from flopbench.models.checkpoints import (
    Join,
    check_shapes,
    checked_weights,
    load_released_checkpoint,
    load_timm_state_dict,
    pixels,
    read_checkpoint,
    state_dict_in,
)
from flopbench.models.factory import create_model
from flopbench.models.layouts import RELEASED, TIMM, sources
from flopbench.models.recognise import recognise
from flopbench.models.tasks import CLASSIFICATION, TASKS, TaskName
from flopbench.results.training_folder import CHECKPOINT, EMA, WEIGHTS
from flopbench.results.trainings import NetworkInfo
from flopbench.symmetries.registry import ScheduleName, load
from flopbench.training.weights import read_weights, weights_info

State = dict[str, Tensor]
Size = tuple[int, int]

PRETRAINED = "pretrained"
"""Instead of a file of weights: those that timm downloads."""

_OWN = "its own"
_USUAL_SIZE = (224, 224)
_SIZES = {"patch_size", "width", "depth", "heads", "widths", "depths"}
# What a released file tells of its network beside the size.
_TOLD = ("head", "invariants", "activation", "layer_scale")
_JOINS: dict[ScheduleName, Join] = {"hybrid": "hybrid", "early_invariant": "early-invariant"}


@dataclass(frozen=True)
class Trained:
    """A network with trained weights, in evaluation mode, and the images that it wants.

    Attributes:
        model: of fp32 parameters, on the CPU.
        options: of the network's class.
        weights: the name of the file, `pretrained` or `its own`.
        digest: twelve hexadecimal digits of the file's content, or else of the weights themselves.
        image_size: pixels, (height, width).
        num_classes: logits; None where only a call of the network would tell.
        task: what it gives.
        mean, std: what images are normalised by; None where nothing says.
        crop, interpolation: how images are resized; None where nothing says.
        licence: of the weights; None where nothing says.
    """

    model: nn.Module
    options: Mapping[str, Any]
    weights: str
    digest: str
    image_size: Size
    num_classes: int | None = None
    task: TaskName = "classification"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: float | None = None
    interpolation: str | None = None
    licence: str | None = None


def load_network(
    name: str,
    weights: str | Path | None,
    *,
    image_size: Size | None = None,
    task: TaskName | None = None,
    options: Mapping[str, Any] | None = None,
    impl: Impl = "auto",
) -> Trained:
    """The network of a name with trained weights.

    A file is one of flopbench's own (`.safetensors`, `checkpoint.pt`), a checkpoint that the authors of flop
    or octic networks released, timm's state dict for a baseline of ours or for a network of timm, or a state
    dict by the names of the network itself. The folder of a training stands for the averaged weights in it,
    or the last ones where none were averaged. What averages its answers over a group has the weights of the
    plain network.

    Args:
        name: of `create_model`.
        weights: the file or folder; `pretrained` for what timm downloads; None for `package.module:callable`,
            which returns a network with weights.
        image_size: pixels, (height, width), if not the size that the network was trained for. A ViT's
            embedding of positions is interpolated.
        task: what the network gives; by default what the file says, else classification.
        options: of the network's class; by default those that the file names.
        impl: of our networks' operations.

    Raises:
        FlopbenchError: there are no weights, the file cannot be read or is of another network, or the network
            cannot have images of that size.
    """
    parsed = parse_name(name)
    if parsed.version.averaged:
        trained = load_network(
            parsed.base, weights, image_size=image_size, task=task, options=options, impl=impl
        )
        network = Averaged(trained.model, load(parsed.version.about), TASKS[trained.task])
        return replace(trained, model=network.eval())
    if weights is None:
        return _with_its_own(parsed, image_size, task or CLASSIFICATION.name, options or {})
    if weights == PRETRAINED:
        return _pretrained(parsed, image_size, task or CLASSIFICATION.name, options or {})
    path = _file(Path(weights))
    state, info = _read(path)
    _check_info(path, info, name, task, options)
    options = (info.options if info else {}) if options is None else options
    task = task or (info.task if info else CLASSIFICATION.name)
    if parsed.spec is not None:
        native = info.image_size if info else None
        model, size, options = _ours(path, parsed, parsed.spec, state, native, image_size, task, options)
        select(model, impl)
        classes = _classes(state)
    else:
        model, size, classes = _foreign(path, parsed, state, info, image_size, options)
    about: dict[str, Any] = {"mean": info.mean, "std": info.std} if info else _of_timm(parsed)
    return Trained(model.eval(), options, path.name, _digest_of(path), size, classes, task, **about)


def _with_its_own(name: ModelName, size: Size | None, task: TaskName, options: Mapping[str, Any]) -> Trained:
    """What somebody's callable returns."""
    if name.spec is not None or name.raw.startswith("timm:"):
        timms = " or 'pretrained' for timm's own" if name.spec is None else ""
        raise FlopbenchError(f"{name.raw} has no trained weights: give --weights a file{timms}")
    model = create_model(name.raw, **options).eval()
    return Trained(model, options, _OWN, _digest(model), size or _USUAL_SIZE, task=task)


def _pretrained(name: ModelName, size: Size | None, task: TaskName, options: Mapping[str, Any]) -> Trained:
    """What timm downloads, or has downloaded."""
    if not name.raw.startswith("timm:"):
        raise FlopbenchError(f"pretrained weights are timm's, none of {name.raw}: give a file of weights")
    own = _timm_config(name)
    pixels: Size = size or own.input_size[1:]
    model = create_model(name.raw, pixels, own.num_classes, pretrained=True, **options).eval()
    about = {**_of_timm(name), "licence": own.license}
    return Trained(model, options, PRETRAINED, _digest(model), pixels, own.num_classes, task, **about)


def _file(path: Path) -> Path:
    """The file of weights that a path stands for."""
    if not os.path.isdir(path):  # Path.is_dir() raises for names that are too long
        return path
    found = next((path / name for name in (EMA, WEIGHTS) if (path / name).is_file()), None)
    if found is None:
        raise FlopbenchError(f"{path} is a folder without {WEIGHTS}: name a file of weights, or a training")
    return found


def _read(path: Path) -> tuple[State, NetworkInfo | None]:
    """The state dict in a file, and what the file says of the network."""
    if path.suffix == ".safetensors":
        state, info = read_weights(path)
        return state_dict_in(state), info
    content = read_checkpoint(path)
    # Beside a training's checkpoint lie its weights, which say what they are of.
    info = weights_info(path.with_name(WEIGHTS)) if path.name == CHECKPOINT else None
    try:
        return state_dict_in(content), info
    except FlopbenchError as error:
        raise FlopbenchError(f"{path.name}: {error}") from None


def _check_info(
    path: Path,
    info: NetworkInfo | None,
    name: str,
    task: TaskName | None,
    options: Mapping[str, Any] | None,
) -> None:
    if info is None:
        return
    if info.name != name:
        raise FlopbenchError(f"{path.name} holds the weights of {info.name}, not of {name}")
    if task not in (None, info.task):
        raise FlopbenchError(f"{path.name} holds weights of {name} for {info.task}, not for {task}")
    if options is not None and _plain(options) != _plain(info.options):
        raise FlopbenchError(
            f"{path.name} holds the weights of {name} with the options {_plain(info.options)}, "
            f"not {_plain(options)}: leave them out"
        )


def _plain(value: Any) -> Any:
    """A value as JSON has it, which knows no tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _ours(
    path: Path,
    name: ModelName,
    spec: Spec,
    state: State,
    native: Size | None,
    asked: Size | None,
    task: TaskName,
    options: Mapping[str, Any],
) -> tuple[nn.Module, Size, Mapping[str, Any]]:
    """A network of flopbench with the weights of a file, whoever's names these have.

    Args:
        path: of the file, for what is said of it.
        name, spec: the network.
        state: what is in the file.
        native: pixels that it was trained for, where the file says so.
        asked: pixels that are asked for.
        task: what the network gives.
        options: of the network's class; a released file may tell more of them, which is returned, too.
    """
    state = checked_weights(state)
    native = native or _native_size(spec, state, options) or asked or _usual_size(name, options)
    with torch.device("meta"):
        model: Any = create_model(name.raw, native, _classes(state) or 1000, task=task, **options)
    family = "convnext_iso" if spec.family == "convnext" and len(spec.config["widths"]) == 1 else spec.family
    own = _shapes(model)
    names = {
        "released": _names(model, RELEASED.get(family)),
        "own": own.keys(),
        "timm": _names(model, TIMM.get(spec.family)) if not name.has_symmetry else set(),
    }
    # Whose names they are: of those who share most of them with the file.
    whose = max(names, key=lambda one: len(names[one] & state.keys()))
    try:
        if whose == "released":
            if task != CLASSIFICATION.name:
                raise FlopbenchError(f"these are the weights of a classification, not of a {task}")
            return _released(name, spec, state, asked, options)
        size = pixels(spec.family, model.stride, native, asked)
        name.check_image_size(size, options)
        if whose == "own":
            check_shapes(name.raw, own, state)
            model.to_empty(device="cpu").load_state_dict(state)
        else:
            load_timm_state_dict(model.to_empty(device="cpu"), state)
    except FlopbenchError as error:
        raise FlopbenchError(f"{path.name}: {error}") from None
    if spec.family == "vit":
        grid = (size[0] // model.stride, size[1] // model.stride)
        model.pos_embed, model.grid = model.pos_embed.resized(grid), grid
    return model, size, options


def _released(
    name: ModelName, spec: Spec, state: State, asked: Size | None, options: Mapping[str, Any]
) -> tuple[nn.Module, Size, Mapping[str, Any]]:
    """The authors' network, which must be of the name's version and size."""
    wanted = {**spec.config, **options}
    # Another network than a ViT has no heads, and the file may be of a ViT all the same.
    found = recognise(state, wanted.get("heads", 1))
    alike = found.symmetry == name.version.about.name and found.schedule in (None, name.version.schedule)
    same_size = all(_plain(wanted[key]) == _plain(found.config.get(key)) for key in _SIZES & wanted.keys())
    if not (alike and same_size and found.family.startswith(spec.family)):
        raise FlopbenchError(f"these are the weights of {found.told}, not of {name.raw}")
    size = asked or found.config["image_size"]
    model = load_released_checkpoint(
        state,
        join=_JOINS.get(name.version.schedule),
        head=options.get("head"),
        num_heads=wanted.get("heads"),
        image_size=size,
    )
    told = {
        key: found.config[key] for key in _TOLD if found.config.get(key, wanted.get(key)) != wanted.get(key)
    }
    return model, size, {**options, **told}


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _names(model: nn.Module, layout: Any) -> set[str]:
    return {key for _, source in sources(model, layout) for key in source.keys} if layout else set()


def _classes(state: Mapping[str, Tensor]) -> int | None:
    """Logits, by the head's matrix, as our networks, the authors' and timm's versions of ours call it."""
    heads = (
        state[key] for key in ("head.weight", "head.fc.weight", "head.readout.proj.weight") if key in state
    )
    return next((len(head) for head in heads if head.ndim), None)


def _native_size(spec: Spec, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> Size | None:
    """Pixels of the square images that a plain ViT was trained for, by its embedding of positions."""
    positions = state.get("pos_embed", state.get("pos_embed.weight"))
    if positions is None or positions.ndim != 3:
        return None
    side = math.isqrt(positions.shape[1]) * options.get("patch_size", spec.patch_size)
    return side, side


def _usual_size(name: ModelName, options: Mapping[str, Any]) -> Size:
    """The largest square of up to 224 pixels that the network takes."""
    for side in range(_USUAL_SIZE[0], 0, -1):
        with suppress(FlopbenchError):
            name.check_image_size((side, side), options)
            return side, side
    raise FlopbenchError(f"{name.raw} takes no images of up to {_USUAL_SIZE[0]} pixels: give --image-size")


def _foreign(
    path: Path,
    name: ModelName,
    state: State,
    info: NetworkInfo | None,
    asked: Size | None,
    options: Mapping[str, Any],
) -> tuple[nn.Module, Size, int | None]:
    """Somebody else's network with a state dict by its own names."""
    timms = _timm_config(name) if name.raw.startswith("timm:") else None
    size = asked or (info.image_size if info else timms.input_size[1:] if timms else _USUAL_SIZE)
    classes = None
    if timms:
        classifier = timms.classifier if isinstance(timms.classifier, str) else ""
        head = state.get(f"{classifier}.weight")
        classes = info.num_classes if info else timms.num_classes if head is None else len(head)
    model = create_model(name.raw, size, classes or 1000, **options)
    try:
        check_shapes(name.raw, _shapes(model), state)
        model.load_state_dict(state)
    except Exception as error:  # networks load what they are given in ways of their own
        raise FlopbenchError(f"{path.name}: {in_one_line(error)}") from None
    return model, size, classes


def _timm_config(name: ModelName) -> Any:
    import timm

    own = timm.get_pretrained_cfg(name.target)
    if own is None:
        raise FlopbenchError(f"timm has no configuration of {name.target}: check the name")
    return own


def _of_timm(name: ModelName) -> dict[str, Any]:
    """How timm prepares images for a network of its own; nothing for others."""
    if not name.raw.startswith("timm:"):
        return {}
    own = _timm_config(name)
    interpolation = own.interpolation if own.interpolation in ("bilinear", "bicubic") else None
    return {"mean": own.mean, "std": own.std, "crop": own.crop_pct, "interpolation": interpolation}


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _digest(model: nn.Module) -> str:
    return digest_of(model)[:12]


def digest_of(model: nn.Module) -> str:
    """Of the weights themselves, by their names: all 64 hexadecimal digits of SHA-256."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
