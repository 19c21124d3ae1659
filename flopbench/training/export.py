"""A network as a file that an engine loads without flopbench: written, loaded again, held against torch."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from flopbench import __version__
from flopbench.axis_values import NetworkValue
from flopbench.cells import AXES, Cell
from flopbench.engines import Engine, Request, Session, engine, write
from flopbench.engines.base import quiet
from flopbench.errors import FlopbenchError, NothingMeasuredError, in_one_line, unknown
from flopbench.kernels import Ran
from flopbench.kernels.dispatch import specified
from flopbench.models.catalog import parse_name
from flopbench.models.tasks import TASKS, Task
from flopbench.modes import CALIBRATION, DType, EngineName
from flopbench.pairs import Pair
from flopbench.report import text
from flopbench.structures import mapped, tensors
from flopbench.symmetries.actions import OF_KIND
from flopbench.testing.invariance import TOLERANCE, equivariance_errors, promised, random_images
from flopbench.timing.outputs import relative_errors, shapes
from flopbench.timing.workload import build_model, weights_dtype
from flopbench.training.data import ValidationData, open_validation, spread
from flopbench.training.evaluate import cell_of
from flopbench.training.exported import Checked, Exported
from flopbench.training.networks import Trained, digest_of, load_network
from flopbench.training.world import World, visited

Target = Literal["onnx", "aot", "openvino"]
TARGETS: dict[Target, EngineName] = {"onnx": "onnxruntime", "aot": "aot-inductor", "openvino": "openvino"}
"""The engine that a file is written for, and checked in."""

_RANDOM = "random"
# Images per call of the checks; the batch of one is tried as well.
_BATCH = 4
# What `Trained` tells of the images that a network wants, where anything does.
_IMAGES = ("mean", "std", "crop", "interpolation")


def export(
    model: str,
    out: str | Path,
    *,
    to: Target,
    weights: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    depth: int | None = None,
    dtype: DType = "fp32",
    calibration: str | None = None,
    calibration_images: int = CALIBRATION,
    licence: str | None = None,
    options: Mapping[str, Any] | None = None,
    check: bool = True,
    threads: int | None = None,
    force: bool = False,
    **axes: Unpack[NetworkValue],
) -> Exported:
    """Write a network as a file that an engine loads without flopbench, as `flopbench export` does.

        exported = flopbench.export("vit_s16.flop", "vit.onnx", to="onnx", weights="weights.safetensors")
        print(exported)

    The file takes any number of images on a CPU, and says of itself what it is. It is loaded again and held
    against torch; what fails is not kept.

    Args:
        model: what `create_model` takes: "vit_s16.flop", "timm:NAME", "package.module:callable".
        out: the file; its folder exists.
        to: "onnx" for ONNX Runtime, "aot" for AOTInductor, "openvino".
        weights: as `evaluate` takes them. None for a callable that returns a network with its own, and for
            random weights else, of the size that trained ones have: such a file tells times.
        image_size: pixels, one number for square images or (height, width); by default those that the
            network was trained for, or 224.
        depth: blocks of the network, if not as named.
        dtype: that the engine computes in; int8 is calibrated.
        calibration: for int8, a data set's name or the folder of one, as `evaluate` takes them.
        calibration_images: how many of them at most, spread evenly.
        licence: of the weights, for the file to say; by default what timm says of those that it downloads.
        options: of the network's class, with weights; by default those that their file names.
        check: whether the file is loaded and its outputs are compared.
        threads: of the checks; by default as many as torch takes.
        force: whether a file that is there is overwritten.
        axes: what a network of flopbench's is built with: `num_classes`, `task`, `decoder`, `width`,
            `attention`, `positions`.

    Returns:
        What was written, which shows itself.

    Raises:
        FlopbenchError: a mistake in what was given, an engine that is not installed, or a network that
            torch.export or the engine cannot take.
        NothingMeasuredError: the file's outputs are not the network's, or lack its symmetry.
    """
    for name in axes.keys() - NetworkValue.__annotations__.keys():
        raise unknown("argument", name, NetworkValue.__annotations__)
    if to not in TARGETS:
        raise unknown("--to", to, TARGETS)
    path, mode = Path(out), TARGETS[to]
    given = {name: value for name, value in {**axes, "depth": depth}.items() if value is not None}
    size = {} if image_size is None else {"image_size": image_size}
    cell = cell_of(model, device="cpu", batch_size=_BATCH, dtype=dtype, mode=mode, **given, **size)
    _check_calibration(dtype, calibration, calibration_images)
    one = engine(mode)
    _check_path(path, one, to, force)
    with visited("cpu", threads) as here:
        trained = _network(cell, given, weights, cell.image_size if size else None, options)
        inputs: list[Tensor] = []
        if calibration is not None:
            inputs, trained = _calibration(calibration, calibration_images, trained, here)
        about = _about(model, trained, one, dtype, licence)
        network = trained.model.to(weights_dtype(cell))
        parameters = sum(weight.numel() for weight in network.parameters())
        request = Request(dtype, "cpu", about, [(images,) for images in inputs])
        with _beside(path) as written:
            seen = random_images(_BATCH, trained.image_size).to(weights_dtype(cell))
            compared = inputs[0].to(weights_dtype(cell)) if inputs else seen
            # Before the network holds the weights that are exported.
            wanted = _told(model, lambda: _in_torch(network, compared)) if check else []
            ran = _written(model, one, network, seen, written, request)
            checked = None
            if check:
                session = _told(model, lambda: one.load(written, request, torch.get_num_threads()))
                what = f"{len(compared)} {'images of the calibration' if inputs else 'random images'}"
                task = TASKS[trained.task]
                checked = _checked(model, session, wanted, compared, task, TOLERANCE[dtype], what)
            contents, files = one.contents(written), one.files(written)
            # What is loaded comes last: whoever sees it finds the rest beside it.
            for file in reversed(files):
                os.replace(file, path.parent / file.name)
    kept = tuple(path.parent / file.name for file in files)
    return Exported(path, kept, about, contents, parameters, ran, checked)


def _check_calibration(dtype: DType, calibration: str | None, images: int) -> None:
    if dtype != "int8":
        if calibration is not None:
            raise FlopbenchError(f"--calibration is for int8, and {dtype} needs none: leave it out")
        return
    if calibration is None:
        raise FlopbenchError(
            "int8 needs images that are like those to come: give --calibration a data set or a folder"
        )
    if images < 1:
        raise FlopbenchError(f"a calibration needs images, got {images}")


def _check_path(path: Path, one: Engine, to: Target, force: bool) -> None:
    if path.suffix != one.suffix:
        right = path.with_suffix(one.suffix) if path.name else one.suffix
        raise FlopbenchError(f"--out {path}: a file --to {to} ends in {one.suffix}, e.g. {right}")
    if not path.parent.is_dir():
        raise FlopbenchError(f"--out {path}: there is no folder {path.parent}: make it first")
    with _beside(path):
        pass
    if path.is_dir():
        raise FlopbenchError(f"--out {path} is a folder: name a file")
    there = [str(file) for file in {path: None, **dict.fromkeys(one.files(path))} if file.exists()]
    if there and not force:
        raise FlopbenchError(f"{text.joined(there)} is there already: --force overwrites it")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file of the same name in a folder that is gone afterwards, on the same disk.

    Raises:
        FlopbenchError: the folder of `path` cannot be written to.
    """
    try:
        folder = TemporaryDirectory(prefix=".flopbench-", dir=path.parent)
    except OSError as error:
        why = error.strerror or str(error)
        raise FlopbenchError(f"--out {path}: {path.parent} cannot be written to: {why.lower()}") from None
    with folder as name:
        yield Path(name) / path.name


def _network(
    cell: Cell,
    given: Mapping[str, Any],
    weights: str | Path | None,
    image_size: tuple[int, int] | None,
    options: Mapping[str, Any] | None,
) -> Trained:
    """The network in evaluation mode, with the weights of a file, its own, or random ones.

    Args:
        cell: what it is built for.
        given: what was said of it, by the axis's name.
        weights: see `export`.
        image_size: that was asked for.
        options: see `export`.
    """
    name, (parsed, _) = cell.pair.candidate, cell.pair.names
    usual = cell.model_copy(update={field: AXES[field].usual for field in given}).options(name)
    chosen = {key: value for key, value in cell.options(name).items() if usual.get(key) != value}
    chosen.pop("task", None)
    if weights is None and (parsed.spec is not None or parsed.raw.startswith("timm:")):
        if options:
            raise FlopbenchError("options are those of the network in a file of weights: name the file")
        drawn = cell.model_copy(update={"pair": Pair(baseline=name, candidate=name), "dtype": "fp32"})
        model = build_model(name, drawn, torch.device("cpu")).eval()
        classes = cell.num_classes
        return Trained(model, chosen, _RANDOM, _RANDOM, cell.image_size, classes, cell.task)
    trained = load_network(
        name,
        weights,
        image_size=image_size,
        task=given.get("task"),
        options=chosen or None if options is None else options,
    )
    asked = given.get("num_classes", trained.num_classes)
    if trained.num_classes not in (None, asked):
        raise FlopbenchError(f"{trained.weights} has {trained.num_classes} classes, not {asked}")
    return trained


def _calibration(name: str, count: int, trained: Trained, here: World) -> tuple[list[Tensor], Trained]:
    """Images of a set as the network wants them, and the network with what they were normalised by."""

    def opened(share: World) -> ValidationData:
        return open_validation(
            name,
            image_size=trained.image_size,
            world=share,
            crop=trained.crop or 1.0,
            interpolation=trained.interpolation or "bicubic",
            mean=trained.mean,
            std=trained.std,
            workers=0,
            task=None,
        )

    whole = opened(here)
    return spread(opened, whole, count, here), replace(trained, mean=whole.mean, std=whole.std)


def _about(model: str, trained: Trained, one: Engine, dtype: DType, licence: str | None) -> dict[str, str]:
    """What a file says of itself; of several values JSON."""
    height, width = trained.image_size
    symmetry = parse_name(model).symmetry
    images = {key: json.dumps(value) for key in _IMAGES if (value := getattr(trained, key)) is not None}
    said = {
        "name": model,
        "task": trained.task,
        "options": json.dumps(dict(trained.options)) if trained.options else None,
        "symmetry": symmetry and symmetry.name,
        "invariant_under": json.dumps([one.name for one in promised(model)]),
        "input": f"images [batch, 3, {height}, {width}]",
        "image_size": json.dumps(trained.image_size),
        "num_classes": None if trained.num_classes is None else str(trained.num_classes),
        **images,
        "dtype": dtype,
        "engine": one.name,
        "engine_version": one.version(),
        "weights": trained.weights,
        "weights_sha256": digest_of(trained.model),
        "licence": licence or trained.licence,
        "flopbench": __version__,
        "torch": str(torch.__version__),
    }
    return {key: value for key, value in said.items() if value}


def _written(
    model: str, one: Engine, network: nn.Module, images: Tensor, path: Path, request: Request
) -> Ran:
    return _told(model, lambda: write(one, network, (images,), path, request))


def _told(model: str, step: Callable[[], Any]) -> Any:
    """What a step gives; what it raises is told in a line that says which network.

    Raises:
        FlopbenchError: it failed.
    """
    try:
        with quiet():
            return step()
    except OSError:
        raise
    except Exception as error:
        raise FlopbenchError(f"{model} cannot be exported: {in_one_line(error)}") from error


def _in_torch(network: nn.Module, images: Tensor) -> list[Any]:
    """What torch's own operations give for images, and for the first of them alone."""
    with specified(network.eval()), torch.no_grad():
        return [network(images), network(images[:1])]


def _checked(
    model: str,
    session: Session,
    wanted: Sequence[Any],
    images: Tensor,
    task: Task,
    tolerance: float,
    what: str,
) -> Checked:
    """A file in its engine against what `_in_torch` gave for the same images.

    Raises:
        NothingMeasuredError: its outputs are others, or it lacks the symmetry that the network promises.
    """
    unkept = "nothing was kept; --no-check keeps it"

    def in_engine(given: Tensor) -> Any:
        # An engine gives its tensors one after the other, and writes the next ones over them.
        left = iter([x.clone() for x in tensors(session(given))])
        return mapped(wanted[0], lambda _: next(left))

    difference = 0.0
    for given, expected in zip((images, images[:1]), wanted, strict=True):
        got = in_engine(given)
        if shapes(got) != shapes(expected):
            raise NothingMeasuredError(f"{model} gives other shapes in the engine than in torch; {unkept}")
        difference = max([difference, *relative_errors(got, expected)])
    if not difference <= tolerance:
        raise NothingMeasuredError(
            f"{model} in the engine differs from torch: relative error {difference:.1e}, "
            f"allowed {tolerance:.0e}; {unkept}"
        )
    errors: Mapping[str, float] = {}
    if generators := promised(model):
        errors = equivariance_errors(in_engine, images, generators, OF_KIND[task.kind])
    for generator, error in errors.items():
        if not error <= tolerance:
            raise NothingMeasuredError(
                f"{model} is not {task.promise} under a {generator} in the engine: relative error "
                f"{error:.1e}, allowed {tolerance:.0e}; {unkept}"
            )
    return Checked(what, difference, errors, tolerance)
