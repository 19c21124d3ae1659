"""The records of what a device can do, and of where a call's time goes: frozen and typed, as a cell's."""

from typing import Any, Literal

from pydantic import model_validator

from flopbench.cells import Cell
from flopbench.modes import DType
from flopbench.results.records import SCHEMA, Counted, Environment, Finite, Flag, Implemented, Schema, Speedup


class Peaks(Finite):
    """What the device was measured to reach: FLOP/s of a large matrix product per dtype, bytes/s of a copy.

    `cached_copies` holds (bytes of source and destination together, bytes/s) of copies small enough for
    caches, sizes growing. `launch_seconds` is what an operator takes however small it is: on CUDA of the
    host alone, which launches it and goes on. `kernel_seconds` is what a kernel takes the device however
    small it is, from its start to that of the next; None on a CPU.
    """

    flops_per_second: dict[DType, float]
    copy_bytes_per_second: float
    cached_copies: tuple[tuple[int, float], ...] = ()
    launch_seconds: float | None = None
    kernel_seconds: float | None = None

    def bandwidth(self, working_set: float) -> float:
        """Bytes/s at which so many bytes can be moved at best: a cache's rate where they fit into one."""
        for size, rate in self.cached_copies:
            if working_set <= size:
                return rate
        return self.copy_bytes_per_second


class Calibration(Finite):
    """`calibration.json` of a run folder: what this machine can do, and what it can tell apart.

    `visible_change` is the smallest relative change of a cell's speed-up that A/A runs let through,
    by the cell's id.
    """

    schema_: Schema = SCHEMA
    peaks: Peaks
    visible_change: dict[str, float] = {}
    environment: Environment | None = None


Group = Literal["matrix products", "attention", "normalisation", "elementwise", "layout", "other"]


class OperatorTime(Finite):
    """An operator's or kernel's own time, without its callees': seconds and calls per call of the model.

    On CUDA the time of an operator is that of the kernels it launched, and these are its calls.
    """

    name: str
    group: Group
    seconds: float
    calls: float


class Bound(Finite):
    """The least time that a device needs for one call of a model, by a roofline per layer; seconds.

    `arithmetic` is all FLOPs at the peak. `unfused` takes of each layer the longer of its arithmetic
    and its operators' bytes, `fused` the same with a layer's bytes as one kernel would move them;
    `launches` is what starting `operators` operators one by one costs, 0 where that is not known, and
    `fused_launches` the same of `fused_operators`, a layer each. `kernel_seconds` is what each takes the
    device in addition. `parts` holds (unfused, fused) per part of the network.
    """

    arithmetic: float
    unfused: float
    fused: float
    launches: float = 0.0
    operators: int = 0
    fused_launches: float = 0.0
    fused_operators: int = 0
    kernel_seconds: float = 0.0
    parts: dict[str, tuple[float, float]] = {}


class ModelProfile(Counted, Implemented):
    """Where the time of one call of one model went.

    `groups` are seconds per call by kind of operator; what they do not explain of `seconds` is shown
    as unexplained. `flops` (2 × MACs) and `bytes_moved` are those of the whole call, counted;
    `uncounted_operators` were left out of the FLOPs (operator → how often it came), and `not_counted` says
    why nothing could be counted, where nothing could.
    `operators` make up the groups; `parts` are seconds per part of the network, empty when compiled.
    `busy_seconds` is how long of a call some kernel runs; None on a CPU.
    """

    label: str
    seconds: float
    groups: dict[Group, float]
    flops: float | None = None
    not_counted: str = ""
    bytes_moved: float | None = None
    operators: tuple[OperatorTime, ...] = ()
    parts: dict[str, float] = {}
    busy_seconds: float | None = None
    bound: Bound | None = None


class ProfileRecord(Finite):
    """`profile*.json` of a run folder: one cell, both models."""

    schema_: Schema = SCHEMA
    cell: Cell
    baseline: ModelProfile
    candidate: ModelProfile
    speedup: Speedup | None = None
    """Measured in the same process, without the profiler."""
    calls: int = 0
    """Calls of each model that were profiled."""
    peaks: Peaks | None = None
    environment: Environment | None = None
    flags: tuple[Flag, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_cell(cls, raw: Any) -> Any:
        """Early profiles named the values of their cell one by one."""
        if not isinstance(raw, dict) or "pair" not in raw:
            return raw
        named = {field.alias or name for name, field in Cell.model_fields.items()} & raw.keys()
        rest = {name: value for name, value in raw.items() if name not in named}
        return {**rest, "cell": {name: raw[name] for name in named}}
