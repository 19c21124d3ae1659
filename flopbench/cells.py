"""Cells, and the axes: what a cell varies in, each declared once, as a field of `Cell`.

Suite files, the command line, ids, the DataFrame, tables, sentences and comparisons are made from these
declarations: a further axis is a further field, and nothing else. Imports no torch.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from flopbench.errors import FlopbenchError
from flopbench.frozen import Frozen, complaint
from flopbench.kernels import Impl
from flopbench.models.catalog import ROTARY_CHANNELS, parse_name
from flopbench.models.tasks import CLASSIFICATION, TASKS, DecoderName, TaskName
from flopbench.modes import ENGINES, EXPORTED, DeviceKind, DType, Mode, Pass, refusal
from flopbench.pairs import Pair

Attention = Literal["fused", "unfused"]
Positions = Literal["learnt", "rope"]
MemoryFormat = Literal["contiguous", "channels_last"]

# No machine comes near these bounds: what is beyond them is a slip.
Few = Annotated[int, Field(ge=1, le=10_000)]
_Many = Annotated[int, Field(ge=1, le=2**24)]
_Side = Annotated[int, Field(ge=1, le=2**16)]


def _sides(value: object) -> object:
    """Height and width: `224` and "224" are square, "224x192" is not."""
    if isinstance(value, str):
        sides = value.replace("×", "x").split("x")
        if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
            raise ValueError("not an image size; write 224 or 224x192 (height × width)")
        return int(sides[0]), int(sides[-1])
    return (value, value) if isinstance(value, int) else value


ImageSize = Annotated[tuple[_Side, _Side], BeforeValidator(_sides)]


@dataclass(frozen=True)
class Axis:
    """What cells vary in, declared in the annotation of a field of `Cell`.

    A field without a default must be named by every suite, unless `suite` has values; of one with a
    default, that value is as usual, and left unsaid in ids and sentences.

    Attributes:
        plural: the field of a profile, a list of values.
        label: the head of a table's column.
        help: of the option on the command line, by default the label; of a `Literal` its values are added.
        in_id: how a value stands in a cell's id.
        words: how a value stands in a sentence; of a mapping, a value that it lacks stands as it is.
        suite: the values where a suite names none, if not the usual one.
        about: "network" is which, "work" what it does at once, "setting" in what: a report's answer is
            about one.
        outer: of networks, measured at one value for every pair before the next value.
        in_label: networks' labels say it.
        always_shown: the column is there even where all rows of a table have the same value.
        comes_to: what a cell's value comes to, where another value would measure the same; None where it
            comes to nothing.
        field, name, type, usual: of the field of `Cell`; filled in when `AXES` is read off it.
    """

    plural: str
    label: str
    help: str = ""
    in_id: str = "{}"
    words: str | Mapping[Any, str] = "{}"
    suite: tuple[Any, ...] = ()
    about: Literal["network", "work", "setting"] = "setting"
    outer: bool = False
    in_label: bool = False
    always_shown: bool = False
    comes_to: Callable[["Cell"], object] | None = None
    field: str = ""
    name: str = ""
    type: Any = None
    usual: Any = ...

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, not words or sizes."""
        return get_origin(self.type) is not Literal and not isinstance(self.usual, tuple)

    @property
    def option(self) -> str:
        """`--batch-size`."""
        return f"--{self.name.replace('_', '-')}"

    def of(self, cell: "Cell") -> str | int | None:
        """A cell's value as it stands in a row; None where it means nothing to the pair's networks."""
        if self.about == "network" and self.comes_to and self.comes_to(cell) is None:
            return None
        return self.plain(getattr(cell, self.field))

    def plain(self, value: Any) -> str | int | None:
        """A value as it stands in a row: an image size is `224×224`."""
        return "×".join(map(str, value)) if isinstance(value, tuple) else value

    def part(self, value: Any) -> str:
        """A value of a cell as it stands in ids: `b8`, `224x192`; nothing where it is as usual."""
        return "" if value == self.usual else self.in_id.format(self.plain(value)).replace("×", "x")

    def say(self, value: str | int | None, *, usual: bool = False) -> str:
        """A value, as in a row, in a sentence: `bf16 autocast`; nothing where it is as usual, unless `usual`
        asks for it.
        """
        if value is None or (value == self.plain(self.usual) and not usual):
            return ""
        words = self.words if isinstance(self.words, str) else self.words.get(value, "{}")
        return words.format(value)

    def parse(self, text: str) -> Any:
        """The value that was written on the command line.

        Raises:
            FlopbenchError: it is none of this axis.
        """
        try:
            return TypeAdapter(self.type).validate_python(text)
        except ValidationError as error:
            raise FlopbenchError(f"{self.option}: {complaint(error)}") from None


def _decoder(cell: "Cell") -> object:
    return cell.decoder if TASKS[cell.task].decodes else None


def _attention(cell: "Cell") -> object:
    return cell.attention if any(name.has_attention for name in cell.pair.names) else None


def _positions(cell: "Cell") -> object:
    return cell.positions if any(name.has_attention for name in cell.pair.names) else None


def _impl(cell: "Cell") -> object:
    if all(name.spec is None for name in cell.pair.names):
        return None
    # Of bf16 a CPU may have another attention, which needs no compiler.
    as_eager = (cell.impl, cell.mode, cell.device, cell.dtype) == ("auto", "eager", "cpu", "fp32")
    return "eager" if as_eager else cell.impl


class Cell(Frozen):
    """One pair in one value of each axis on one kind of device: what is measured, stored and resumed.

    The order of the axes is that of ids, of columns and of measuring (`Profile.cells`).
    """

    pair: Pair
    device: DeviceKind
    batch_size: Annotated[
        _Many,
        Axis(
            "batch_sizes",
            "batch",
            "Images a batch, or samples of other inputs",
            "b{}",
            "batch {}",
            about="work",
            always_shown=True,
        ),
    ]
    pass_: Annotated[
        Pass,
        Field(alias="pass"),
        Axis(
            "passes",
            "pass",
            words={"train": "in a training step"},
            suite=("forward", "backward"),
            about="work",
            always_shown=True,
        ),
    ]
    dtype: Annotated[
        DType,
        Axis(
            "dtypes",
            "dtype",
            words={"autocast-bf16": "bf16 autocast", "autocast-fp16": "fp16 autocast"},
            suite=("fp32",),
        ),
    ]
    mode: Annotated[
        Mode,
        Axis(
            "modes",
            "mode",
            words={
                "compile": "compiled",
                "max-autotune": "compiled with max-autotune",
                "cuda-graph": "as a CUDA graph",
                "aot-inductor": "in AOTInductor",
                "onnxruntime": "in ONNX Runtime",
                "openvino": "in OpenVINO",
                "tensorrt": "in TensorRT",
            },
            suite=("eager", "compile"),
            always_shown=True,
        ),
    ]
    image_size: Annotated[
        ImageSize,
        Axis(
            "image_sizes",
            "image",
            "Pixels: 224 or 224x192",
            words="{} pixels",
            about="network",
            outer=True,
        ),
    ] = (224, 224)
    num_classes: Annotated[
        _Many,
        Axis("num_classes", "classes", "Logits, of a segmentation per pixel", "{}-classes", "{} classes"),
    ] = 1000
    task: Annotated[TaskName, Axis("tasks", "task", "What our networks give", about="network")] = (
        "classification"
    )
    decoder: Annotated[
        DecoderName,
        Axis(
            "decoders",
            "decoder",
            "How a task of pixels comes to them",
            words="{} decoder",
            comes_to=_decoder,
            about="network",
        ),
    ] = "linear"
    width: Annotated[
        Annotated[int, Field(ge=4, le=2**20, multiple_of=4)] | None,
        Axis(
            "widths",
            "width",
            "Channels of both networks",
            "width{}",
            "width {}",
            about="network",
            in_label=True,
        ),
    ] = None
    depth: Annotated[
        Few | None,
        Axis(
            "depths",
            "depth",
            "Blocks of both networks",
            "depth{}",
            "depth {}",
            about="network",
            in_label=True,
        ),
    ] = None
    attention: Annotated[
        Attention, Axis("attention", "attention", words="{} attention", comes_to=_attention)
    ] = "fused"
    positions: Annotated[
        Positions,
        Axis(
            "positions",
            "positions",
            "Positions of a ViT's tokens",
            words={"rope": "rotary positions"},
            comes_to=_positions,
            about="network",
        ),
    ] = "learnt"
    memory_format: Annotated[MemoryFormat, Axis("memory_formats", "memory format")] = "contiguous"
    impl: Annotated[
        Impl, Axis("impls", "kernels", "Our layers' kernels", "{}-kernels", "{} kernels", comes_to=_impl)
    ] = "auto"

    @property
    def id(self) -> str:
        """A readable key, unique within a run; what is as usual is left out."""
        parts = filter(None, (axis.part(getattr(self, axis.field)) for axis in AXES.values()))
        weights = () if self.pair.perturb else ("own-weights",)
        return "/".join((self.pair.id, self.device, *parts, *weights))

    @property
    def labels(self) -> tuple[str, str]:
        """What people read: the baseline's and the candidate's label, at the cell's width and depth."""
        baseline, candidate = (name.label(self.width, self.depth) for name in self.pair.names)
        return baseline, candidate

    def options(self, name: str) -> dict[str, Any]:
        """What `create_model` is to be called with for one of the models, beside image size and classes.

        Raises:
            FlopbenchError: it cannot have the width, the depth or the task.
        """
        parsed = parse_name(name)
        parsed.check_task(self.task, self.decoder)
        attention = {"attention": self.attention} if parsed.has_attention else {}
        task = {"task": self.task} if self.task != CLASSIFICATION.name else {}
        decoder = {"decoder": self.decoder} if task and TASKS[self.task].decodes else {}
        rotary = parsed.has_attention and self.positions != AXES["positions"].usual
        positions = {"positions": self.positions} if rotary else {}
        # Both have the same heads, which all symmetries of the pair divide, and the slices that turn.
        turned = ROTARY_CHANNELS if rotary else 1
        divisor = math.lcm(turned, *(other.version.about.divisor for other in self.pair.names))
        size = parsed.sized(self.width, self.depth, divisor)
        return {**attention, **task, **decoder, **positions, **size}

    @property
    def pair_label(self) -> str:
        """What `Pair.label` is at this width and depth."""
        baseline, candidate = self.labels
        return candidate if self.pair.tells_baseline else f"{candidate} against {baseline}"

    @property
    def words(self) -> list[str]:
        """`batch 4`, `forward`, `bf16 autocast`, `compiled`; what is as usual is left out."""
        said = {name: axis.say(axis.of(self)) for name, axis in AXES.items()}
        if self.mode in ENGINES and said["impl"]:
            said["impl"] = EXPORTED.get(self.impl, said["impl"])
        return [*filter(None, said.values())]

    @property
    def comes_to(self) -> "Cell":
        """The same for two cells that would measure the same. Not a cell: some of its values are none."""
        axes = [axis for axis in AXES.values() if axis.comes_to]
        return self.model_copy(update={axis.field: axis.comes_to(self) for axis in axes if axis.comes_to})

    def check(self) -> Self:
        """The cell itself, if its models can be measured in it.

        Raises:
            FlopbenchError: a model cannot take the image size, the width, the depth, the task or the
                positions, or a single layer, or a network that gives features, the pass.
        """
        for name in self.pair.names:
            self.options(name.raw)
            name.check_image_size(self.image_size)
            name.check_positions(self.positions)
            if (self.task, self.pass_, self.pair.loss) == ("features", "train", None) and name.has_tasks:
                raise FlopbenchError(
                    f"features of {name.raw} have no loss to train with: "
                    "state one, or choose forward or backward"
                )
            if name.is_layer and (
                self.pass_ == "train" or (self.pass_ == "backward" and self.mode != "eager")
            ):
                raise FlopbenchError(
                    f"{name.raw} is a single layer: it has no {self.pass_} pass in mode {self.mode}; "
                    "choose forward, or backward in mode eager"
                )
        if refusal := self.refusal():
            raise FlopbenchError(refusal)
        return self

    def refusal(self, device: DeviceKind | None = None) -> str | None:
        """Why the cell's mode has not its pass or its dtype on a device, or on any; None where it has."""
        return refusal(self.mode, self.pass_, self.dtype, device)


def _axes() -> Iterator[Axis]:
    for name, field in Cell.model_fields.items():
        for axis in field.metadata:
            if isinstance(axis, Axis):
                rest = [part for part in field.metadata if part is not axis]
                kind = Annotated[(field.annotation, *rest)] if rest else field.annotation
                values = ", ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else ""
                yield replace(
                    axis,
                    field=name,
                    name=field.alias or name,
                    type=kind,
                    usual=... if field.is_required() else field.default,
                    help=": ".join(filter(None, (axis.help or axis.label.capitalize(), values))),
                )


AXES: dict[str, Axis] = {axis.name: axis for axis in _axes()}
"""The axes by name, in the order of their declaration."""
