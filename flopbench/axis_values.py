"""Values of the axes as they are given from Python: names and types, for editors and type checkers."""

from collections.abc import Sequence
from typing import Any, TypedDict

from flopbench.cells import Attention, MemoryFormat, Positions
from flopbench.kernels import Impl
from flopbench.models.tasks import DecoderName, TaskName
from flopbench.modes import DeviceKind, DType, Mode, Pass


class AxisValues(TypedDict, total=False):
    """The values to measure of each axis, as they are given from Python: one, or several."""

    batch_sizes: int | Sequence[int]
    passes: Pass | Sequence[Pass]
    dtypes: DType | Sequence[DType]
    modes: Mode | Sequence[Mode]
    image_sizes: int | str | Sequence[int | str | tuple[int, int]]
    num_classes: int | Sequence[int]
    tasks: TaskName | Sequence[TaskName]
    decoders: DecoderName | Sequence[DecoderName]
    widths: int | Sequence[int | None]
    depths: int | Sequence[int | None]
    attention: Attention | Sequence[Attention]
    positions: Positions | Sequence[Positions]
    memory_formats: MemoryFormat | Sequence[MemoryFormat]
    impls: Impl | Sequence[Impl]


class NetworkValue(TypedDict, total=False):
    """The value of each axis that says what network is built, but for its size of image and its depth."""

    num_classes: int
    task: TaskName
    decoder: DecoderName
    width: int
    attention: Attention
    positions: Positions


class AxisValue(NetworkValue, total=False):
    """The value of each axis of one cell, as it is given from Python."""

    batch_size: int
    pass_: Pass
    dtype: DType
    mode: Mode
    image_size: int | str | tuple[int, int]
    depth: int
    memory_format: MemoryFormat
    impl: Impl


ONE_CELL: dict[DeviceKind, dict[str, Any]] = {
    "cpu": {"batch_sizes": 4, "passes": "forward", "dtypes": "fp32", "modes": "eager"},
    "cuda": {"batch_sizes": 64, "passes": "forward", "dtypes": "bf16", "modes": "eager"},
}
"""The values of a cell that stands for its pair, where nothing else is said."""
