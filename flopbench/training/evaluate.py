"""How right a trained network is, on images and on their mirror images, and how fast."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError, NothingMeasuredError, in_one_line, out_of_memory, unknown
from flopbench.flops.audit import count_macs
from flopbench.frozen import complaint
from flopbench.inputs import Inputs, inputs_for
from flopbench.kernels import Impl
from flopbench.kernels.inductor import missing_compiler
from flopbench.models.catalog import parse_name
from flopbench.models.factory import num_parameters
from flopbench.models.tasks import TASKS, Task, TaskName
from flopbench.modes import CALIBRATION, DeviceKind, DType, Mode
from flopbench.pairs import Pair
from flopbench.report.evaluations import FILE, Evaluations
from flopbench.results import Flag, Interval, write_record
from flopbench.results.folder import made_folder, make_under, name_of
from flopbench.results.trainings import Accuracy, EvaluationRecord
from flopbench.runner.needs import needs_cpp, unmet
from flopbench.runner.sweep import check_cells
from flopbench.symmetries.registry import others
from flopbench.testing.invariance import promised
from flopbench.timing.bench import Bench
from flopbench.timing.environment import describe
from flopbench.timing.workload import cell_inputs, make_workload, weights_dtype
from flopbench.training.accuracy import measure_accuracy
from flopbench.training.data import ValidationData, open_validation, spread
from flopbench.training.networks import Trained, load_network
from flopbench.training.world import World, visited

INTERPOLATIONS = ("bilinear", "bicubic")

_BATCH: dict[DeviceKind, int] = {"cpu": 32, "cuda": 256}
# Seconds of timing that nobody means to spend.
_LONGEST = 3600


def evaluate(
    model: str,
    weights: str | Path | None = None,
    *,
    data: str,
    image_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
    interpolation: str | None = None,
    batch_size: int | None = None,
    dtype: DType = "fp32",
    mode: Mode = "eager",
    impl: Impl = "auto",
    device: str | None = None,
    tta: bool | None = None,
    task: TaskName | None = None,
    workers: int | None = None,
    threads: int | None = None,
    cell_seconds: float = 5.0,
    precision: float = 0.02,
    options: Mapping[str, Any] | None = None,
    results: str | Path | None = "results",
    command: str | None = None,
) -> Evaluations:
    """Measure a trained network's accuracy and speed on this device, as `flopbench evaluate` does.

        evaluation = flopbench.evaluate("vit_s16.flop", "weights.safetensors", data="imagenet")
        print(evaluation)

    Each image is shown as it is and mirrored, in the dtype and mode that the speed is measured in. Processes
    that `torchrun` started share the images; the first one measures the speed, of its own device, and writes.

    Args:
        model: what `create_model` takes: "vit_s16.flop", "timm:NAME", "package.module:callable".
        weights: a file of weights: one that flopbench wrote, a checkpoint that the authors of flop or octic
            networks released, timm's, or a state dict by the network's own names; "pretrained" for what timm
            downloads. None for a callable that returns a network with its own.
        data: a data set's name, or the folder of one (see `flopbench.training.data`).
        image_size: pixels, one number for square images or (height, width); by default those that the
            network was trained for.
        crop: images are resized so that a centre crop of `image_size` is this share of their shorter side; by
            default what timm says of a network of its own, else 1.
        interpolation: "bilinear" or "bicubic"; by default what timm says, else bicubic.
        batch_size: images per call on each device; by default 32 on a CPU and 256 on a GPU.
        dtype, mode, impl: as what cells vary in. What an engine quantises to int8 is calibrated on up
            to 128 images of the set, spread evenly, whose labels it does not see.
        device: "cpu" or "cuda"; by default a GPU if there is one.
        tta: whether the mean of the probabilities of an image and its mirror image is scored, too; by default
            for networks that do not promise the same for both.
        task: what the network gives, "classification" or "segmentation"; by default what the file of weights
            says, else classification.
        workers: processes that read images for each of those that compute.
        threads: that a CPU computes with; by default as many as torch takes.
        cell_seconds: seconds of timing, at most; 0 for no timing.
        precision: relative half-width of the 95 % interval of the time per call at which timing ends.
        options: of the network's class; by default those that the file of weights names.
        results: the folder that the evaluation's folder goes to; None writes nothing.
        command: what the record has as its origin; by default this call.

    Returns:
        The evaluation, which shows itself.

    Raises:
        FlopbenchError: a mistake in what was given, weights or data that do not fit the network, or the
            device is not there.
        NothingMeasuredError: the network fails, or does not fit into memory.
    """
    if crop is not None and not 0 < crop <= 1:
        raise FlopbenchError(f"crop is a share of the image's shorter side, up to 1, got {crop}")
    if interpolation not in (None, *INTERPOLATIONS):
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    if not (0 < precision < 1 and 0 <= cell_seconds <= _LONGEST):
        raise FlopbenchError(
            f"precision is between 0 and 1, and cell_seconds from 0 to {_LONGEST}, "
            f"got {precision} and {cell_seconds}"
        )
    parsed = parse_name(model)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    begun = time.monotonic()
    with visited(device, threads) as own:
        trained = load_network(model, weights, image_size=size, task=task, options=options, impl=impl)
        cell = cell_of(
            model,
            device=own.kind,
            batch_size=_BATCH[own.kind] if batch_size is None else batch_size,
            dtype=dtype,
            mode=mode,
            impl=impl,
            image_size=trained.image_size,
        )
        network = trained.model.to(own.device)
        resized: dict[str, Any] = {
            "image_size": trained.image_size,
            "crop": crop or trained.crop or 1.0,
            "interpolation": interpolation or trained.interpolation or "bicubic",
        }
        num_classes = trained.num_classes or _count_classes(model, network, trained)

        def shared(by: World) -> ValidationData:
            return open_validation(
                data,
                **resized,
                mean=trained.mean,
                std=trained.std,
                num_classes=num_classes,
                workers=workers,
                world=by,
                task=trained.task,
            )

        opened = shared(own)
        seen = spread(shared, opened, CALIBRATION, own) if dtype == "int8" else []
        flags: list[Flag] = []
        macs, parameters = _macs(cell, network, flags), num_parameters(network)
        averaged = not _mirror_invariant(model) if tta is None else tta
        with _failing(f"{model} at batch size {cell.batch_size}"):
            bench = _bench(cell, network, own, [(images,) for images in seen])
            accuracy = _accuracy(bench, cell, opened, own, TASKS[trained.task], averaged)
            speed = _speed(bench, cell_seconds, precision) if own.first and cell_seconds else None
        deployed = bench.workloads["baseline"].deployed
        created = datetime.now(UTC)
        record = EvaluationRecord(
            id=name_of(created, "evaluate", model, opened.validation.name, own.kind),
            created=created.isoformat(timespec="seconds"),
            command=command or f"flopbench.evaluate({model!r}, data={opened.validation.name!r})",
            name=model,
            label=parsed.label_with(trained.options),
            task=trained.task,
            options=dict(trained.options),
            weights=trained.weights,
            weights_digest=trained.digest,
            parameters=parameters,
            macs=macs,
            deployed=deployed
            and deployed.record.model_copy(update={"first_call_seconds": bench.first_seconds["baseline"]}),
            data=opened.validation,
            **resized,
            mean=opened.mean,
            std=opened.std,
            accuracy=accuracy,
            batch_size=cell.batch_size,
            dtype=dtype,
            mode=mode,
            impl=impl,
            world_size=own.size,
            throughput=speed and speed.throughput,
            samples=speed.samples if speed else (),
            seconds=round(time.monotonic() - begun, 3),
            environment=describe(own.kind),
            symmetries=others([parsed.version.about]),
            implementations=bench.ran["baseline"],
            flags=(*flags, *(speed.flags if speed else ())),
        )
        if own.first and results is not None:
            record = make_under(Path(results), record.id, lambda folder: _written(record, folder))
        # The others wait for the first one, which took the time.
        return Evaluations([own.share(record)])  # pyright: ignore[reportArgumentType]


class _Speed(NamedTuple):
    """Images per second, the seconds of every timed call, and what is questionable in them."""

    throughput: Interval
    samples: tuple[float, ...]
    flags: tuple[Flag, ...]


def cell_of(model: str, **fields: Any) -> Cell:
    """A network's forward pass, as a cell of the network with itself, which keeps its weights.

    Raises:
        FlopbenchError: a field's value is none, or something is missing here that the cell needs.
    """
    pair = Pair(baseline=model, candidate=model, perturb=False)
    try:
        cell = Cell.model_validate({"pair": pair, "pass": "forward", **fields})
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        raise FlopbenchError(f"{where[0] if where else 'evaluation'}: {complaint(error)}") from None
    check_cells([cell])
    if reason := unmet(cell, no_cpp=missing_compiler() if needs_cpp(cell) else None):
        raise FlopbenchError(reason)
    return cell


def _bench(cell: Cell, network: nn.Module, own: World, calibration: Sequence[tuple[Tensor, ...]]) -> Bench:
    """The network alone, called once: compiled where it is to be, in the cell's dtype."""
    network = network.to(weights_dtype(cell))
    workload = make_workload(network, cell_inputs(cell, own.device), cell, calibration)
    bench = Bench({"baseline": workload}, cell.device, cell)
    bench.first_calls()
    return bench


def _accuracy(
    bench: Bench, cell: Cell, opened: ValidationData, own: World, task: Task, averaged: bool
) -> Accuracy:
    workload = bench.workloads["baseline"]

    def logits(images: Tensor) -> Tensor:
        return workload.logits(Inputs(images.to(weights_dtype(cell))))

    return measure_accuracy(
        logits,
        opened.validating(cell.batch_size),
        own,
        task=task,
        classes=len(opened.classes),
        averaged=averaged,
    )


def _speed(bench: Bench, seconds: float, precision: float) -> _Speed:
    bench.warm_up(0.1 * seconds)
    rounds, _, flags, _ = bench.sample(seconds=seconds, precision=precision)
    per_call = rounds.settle()
    batch = bench.workloads["baseline"].inputs.batch_size
    throughput = Interval(
        estimate=batch / per_call.estimate, low=batch / per_call.high, high=batch / per_call.low
    )
    samples = tuple(float(f"{value:.9g}") for row in rounds.baseline for value in row)
    return _Speed(throughput, samples, flags)


def _count_classes(model: str, network: nn.Module, trained: Trained) -> int:
    """Logits, of a network that only a call tells them of."""
    image_size, dense = trained.image_size, TASKS[trained.task].decodes
    weight = next(network.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            logits = network(torch.zeros(1, 3, *image_size, device=weight.device, dtype=weight.dtype))
    except Exception as error:
        raise FlopbenchError(f"{model} does not take images {image_size}: {in_one_line(error)}") from error
    if not isinstance(logits, Tensor) or logits.ndim != (4 if dense else 2):
        what = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        wanted = "[images, classes, height, width]" if dense else "[images, classes]"
        raise FlopbenchError(f"{model} gives {what}, no logits {wanted}")
    return logits.shape[1]


def _macs(cell: Cell, network: nn.Module, flags: list[Flag]) -> int | None:
    """Of the forward pass of one image; a flag says why where they cannot be counted."""
    try:
        return count_macs(network, inputs_for(network, None, 1, cell.image_size), 1).macs
    except (Exception, SystemExit) as error:
        flags.append(
            Flag(
                kind="uncounted",
                message=f"the MACs could not be counted: {in_one_line(error)}",
                remedy="accuracy and speed stand by themselves",
            )
        )
        return None


def _mirror_invariant(model: str) -> bool:
    """Whether the network promises the same logits for an image and its mirror image."""
    image = torch.arange(4).view(1, 1, 2, 2)
    return any(torch.equal(generator.images(image), image.flip(-1)) for generator in promised(model))


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Within it, whatever a network raises is told in a line that says which network.

    Raises:
        NothingMeasuredError: it failed, or did not fit into memory.
    """
    try:
        yield
    except FlopbenchError:
        raise
    except Exception as error:
        full = out_of_memory(error)
        why = f"{full}; choose a smaller --batch-size" if full else in_one_line(error)
        raise NothingMeasuredError(f"{what}: {why}") from error


def _written(record: EvaluationRecord, folder: Path) -> EvaluationRecord:
    """Write it to a folder of its own, under whose name it is returned."""
    record = record.model_copy(update={"id": folder.name})
    with made_folder(folder):
        write_record(folder / FILE, record)
    return record
