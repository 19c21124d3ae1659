"""Runs on disk: `run.json` says what was run on what, `cells.jsonl` holds a line a measured cell.

The raw data is append-only: a line is written and flushed as soon as its cell is done, and nothing
ever rewrites it. A cell that was measured again (a resumed run) has its later line count.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from flopbench.errors import FlopbenchError
from flopbench.suites import Cell, DType, Frozen, Mode, Pair, Pass, Profile

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1

Status = Literal["ok", "failed", "oom", "timeout", "crashed", "skipped"]
Samples = tuple[tuple[float, ...], ...]


class Interval(Frozen):
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width relative to the estimate."""
        return (self.high - self.low) / 2 / self.estimate


class ModelResult(Frozen):
    """What was found out about one model of a cell.

    `macs` are the forward pass's for one image. `samples` holds seconds a call, one inner tuple a
    round, in the order of measurement; `host_samples` the host's dispatch time of the same calls
    (CUDA only). `peak_bytes` is weights, gradients, optimiser state and activations at the pass's
    peak. `compile_seconds` is the first call of a compiled model (None when eager).
    """

    name: str
    label: str
    parameters: int
    macs: int | None = None
    uncounted_operators: dict[str, int] = {}
    peak_bytes: int | None = None
    compile_seconds: float | None = None
    samples: Samples = ()
    host_samples: Samples = ()


class Check(Frozen):
    """The numerical check before timing: largest |f(x) − f(flop x)| relative to the logits' spread.

    `random` is on normal noise and `photo` on a real photograph, with perturbed weights, in fp32;
    `in_cell` is on the cell's own input in the cell's dtype and mode. None: not invariant by
    construction (a plain or hybrid network), so not asked for. `agreement` is the largest
    |compiled − eager| of either model, relative to the same spread (None for an eager cell).
    """

    random: float | None = None
    photo: float | None = None
    in_cell: float | None = None
    agreement: float | None = None
    tolerance: float
    in_cell_tolerance: float


class Flag(Frozen):
    """Something that makes a measurement less trustworthy, with what to do about it."""

    kind: str
    message: str
    remedy: str


class CellRecord(Frozen):
    """One line of `cells.jsonl`."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    cell: Cell
    replicate: int = 0
    status: Status
    reason: str = ""
    started: str
    wall_seconds: float
    baseline: ModelResult | None = None
    candidate: ModelResult | None = None
    speedup: Interval | None = None
    stop: Literal["precision", "time", "rounds"] | None = None
    check: Check | None = None
    flags: tuple[Flag, ...] = ()
    device_state: dict[str, Any] = {}
    phases: dict[str, float] = {}
    """Seconds of the cell's wall time by phase: build, compile, check, warm-up, memory, sampling."""

    model_config = {**Frozen.model_config, "populate_by_name": True}

    @property
    def key(self) -> tuple[str, int]:
        """What the record is about: the cell's id and the replicate."""
        return self.cell.id, self.replicate

    @property
    def macs_ratio(self) -> float | None:
        """MACs of the baseline over MACs of the candidate: the speed-up that the arithmetic promises."""
        if self.baseline and self.candidate and self.baseline.macs and self.candidate.macs:
            return self.baseline.macs / self.candidate.macs
        return None

    @property
    def realised_share(self) -> float | None:
        """(speed-up − 1) / (MACs ratio − 1); None where the MACs promise less than 1 %."""
        ratio = self.macs_ratio
        if self.speedup is None or ratio is None or abs(ratio - 1) < 0.01:
            return None
        return (self.speedup.estimate - 1) / (ratio - 1)


class Environment(Frozen):
    """What a run was taken on. Nothing personal: no user, host name or path."""

    device: Literal["cpu", "cuda"]
    device_name: str
    device_count: int = 1
    device_memory_bytes: int | None = None
    driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    os: str
    python: str
    torch: str
    triton: str | None = None
    fvcore: str
    flopbench: str
    commit: str | None = None

    def differences(self, other: "Environment", fields: Iterable[str]) -> list[str]:
        """`field: mine → theirs` for each of `fields` that is not the same."""
        return [
            f"{name}: {getattr(self, name)} → {getattr(other, name)}"
            for name in fields
            if getattr(self, name) != getattr(other, name)
        ]


class RunInfo(Frozen):
    """`run.json`."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    id: str
    suite: str
    title: str
    suite_digest: str
    profile: Profile
    quick: bool = False
    shard: tuple[int, int] | None = None
    command: str
    created: str
    environment: Environment

    model_config = {**Frozen.model_config, "populate_by_name": True}


class Peaks(Frozen):
    """What the device was measured to reach: FLOP/s of a large matrix product a dtype, bytes/s of a copy."""

    flops_per_second: dict[DType, float]
    copy_bytes_per_second: float


class Calibration(Frozen):
    """`calibration.json` of a run folder: what this machine can do, and what it can tell apart.

    `visible_change` is the smallest relative change of a cell's speed-up that A/A runs let through,
    by the cell's id.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    peaks: Peaks
    visible_change: dict[str, float] = {}
    environment: Environment | None = None

    model_config = {**Frozen.model_config, "populate_by_name": True}


Group = Literal["matrix products", "attention", "normalisation", "elementwise", "layout", "other"]


class ModelProfile(Frozen):
    """Where the time of one call of one model went.

    `groups` are seconds a call by kind of operator; what they do not explain of `seconds` is shown
    as unexplained. `flops` (2 × MACs) and `bytes_moved` are those of the whole call, counted.
    """

    label: str
    seconds: float
    groups: dict[Group, float]
    flops: float | None = None
    bytes_moved: float | None = None


class ProfileRecord(Frozen):
    """`profile*.json` of a run folder: one pair, one pass, both models."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    pair: Pair
    pass_: Pass = Field(alias="pass")
    batch_size: int
    dtype: DType
    mode: Mode
    baseline: ModelProfile
    candidate: ModelProfile

    model_config = {**Frozen.model_config, "populate_by_name": True}


class Run:
    """A run folder. Reading never changes it; `append` adds one record and flushes it to disk."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def create(cls, path: Path, info: RunInfo) -> "Run":
        """Make a new run folder.

        Raises:
            FlopbenchError: the folder exists already.
        """
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise FlopbenchError(f"run folder {path} exists already; use --resume {path}") from None
        write_atomically(path / "run.json", info.model_dump_json(by_alias=True, indent=1) + "\n")
        (path / "cells.jsonl").touch()
        return cls(path, info)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open an existing run folder.

        Raises:
            FlopbenchError: it is no run, or of a schema this version does not read.
        """
        file = path / "run.json"
        if not file.is_file():
            raise FlopbenchError(f"{path} is not a run: it has no run.json")
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(raw, dict) and raw.get("schema") != SCHEMA:
                raise FlopbenchError(
                    f"{file} has schema {raw.get('schema')!r}; this flopbench reads schema {SCHEMA}"
                )
            return cls(path, RunInfo.model_validate(raw))
        except (json.JSONDecodeError, ValidationError) as error:
            raise FlopbenchError(f"{file} is damaged: {str(error).splitlines()[0]}") from None

    def append(self, record: CellRecord) -> None:
        """Add a record; it is on disk when this returns."""
        line = record.model_dump_json(by_alias=True) + "\n"
        with (self.path / "cells.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> Iterator[CellRecord]:
        """Every record in the order of writing, later measurements of a cell included.

        A torn last line (the process was killed while writing) is passed over with a warning.

        Raises:
            FlopbenchError: another line is damaged.
        """
        path = self.path / "cells.jsonl"
        if not path.is_file():
            raise FlopbenchError(f"{self.path} is not a run: it has no cells.jsonl")
        text = path.read_text(encoding="utf-8", errors="replace")
        rows = text.splitlines()
        for number, row in enumerate(rows, 1):
            if not row.strip():
                continue
            try:
                yield CellRecord.model_validate_json(row)
            except ValidationError as error:
                if number == len(rows) and not text.endswith("\n"):
                    warnings.warn(f"{path}: torn last line passed over", stacklevel=2)
                    return
                raise FlopbenchError(
                    f"{path}, line {number} is damaged: {error.errors()[0]['msg']}"
                ) from None

    def set_torn_line_aside(self) -> None:
        """Move an unfinished last line to `cells.torn`, so that the next record starts on a line of its own."""
        path = self.path / "cells.jsonl"
        data = path.read_bytes() if path.is_file() else b""
        whole, newline, torn = data.rpartition(b"\n")
        if not torn:
            return
        warnings.warn(f"{path}: the last line was torn and is set aside in cells.torn", stacklevel=2)
        with (self.path / "cells.torn").open("ab") as file:
            file.write(torn + b"\n")
        write_atomically(path, whole + newline)

    def records(self) -> list[CellRecord]:
        """The last record of each cell and replicate, in the order in which the cells first appeared."""
        latest: dict[tuple[str, int], CellRecord] = {}
        for record in self.lines():
            latest[record.key] = record
        return list(latest.values())

    def calibration(self) -> Calibration | None:
        """What `calibration.json` says; None where the run has none.

        Raises:
            FlopbenchError: it is damaged.
        """
        file = self.path / "calibration.json"
        return _read(file, Calibration) if file.is_file() else None

    def profiles(self) -> list[ProfileRecord]:
        """What the `profile*.json` files say, by file name.

        Raises:
            FlopbenchError: one is damaged.
        """
        return [_read(file, ProfileRecord) for file in sorted(self.path.glob("profile*.json"))]


_Record = TypeVar("_Record", bound=Frozen)


def _read(file: Path, record: type[_Record]) -> _Record:
    try:
        return record.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise FlopbenchError(f"{file} is damaged: {where + ': ' if where else ''}{first['msg']}") from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name beside it and rename it, so that no reader sees half of it."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _median(samples: Samples) -> float | None:
    flat = sorted(value for round_ in samples for value in round_)
    middle = len(flat) // 2
    return None if not flat else (flat[middle] + flat[~middle]) / 2


def to_frame(runs: Iterable[Run]) -> "pd.DataFrame":
    """One row a cell, replicate and run.

    Columns: what the cell is (`run`, `device_name`, `family_label`… as in `Cell`), then `status`,
    `reason`, for `baseline_` and `candidate_` each `label`, `parameters`, `macs`, `seconds` (median a
    call), `throughput` (images a second), `peak_bytes`, `compile_seconds`, then `speedup`,
    `speedup_low`, `speedup_high`, `macs_ratio`, `realised_share`, `invariance_error`, `stop`,
    `rounds`, `flags`.
    """
    import pandas as pd

    rows = [_row(run, record) for run in runs for record in run.records()]
    return pd.DataFrame(rows)


def _row(run: Run, record: CellRecord) -> dict[str, Any]:
    cell = record.cell
    row: dict[str, Any] = {
        "run": run.info.id,
        "device": cell.device,
        "device_name": run.info.environment.device_name,
        "pair": cell.pair.id,
        "cell": cell.id,
        "replicate": record.replicate,
        "batch_size": cell.batch_size,
        "pass": cell.pass_,
        "dtype": cell.dtype,
        "mode": cell.mode,
        "image_size": "×".join(map(str, cell.image_size)),
        "attention": cell.attention,
        "memory_format": cell.memory_format,
        "status": record.status,
        "reason": record.reason,
    }
    labels = dict(zip(("baseline", "candidate"), cell.pair.labels, strict=True))
    for role, label in labels.items():
        result: ModelResult | None = getattr(record, role)
        seconds = _median(result.samples) if result else None
        row |= {
            f"{role}_label": label,
            f"{role}_parameters": result.parameters if result else None,
            f"{role}_macs": result.macs if result else None,
            f"{role}_seconds": seconds,
            f"{role}_throughput": cell.batch_size / seconds if seconds else None,
            f"{role}_peak_bytes": result.peak_bytes if result else None,
            f"{role}_compile_seconds": result.compile_seconds if result else None,
        }
    speedup, check = record.speedup, record.check
    errors = [e for e in (check.random, check.photo, check.in_cell) if e is not None] if check else []
    return row | {
        "speedup": speedup.estimate if speedup else None,
        "speedup_low": speedup.low if speedup else None,
        "speedup_high": speedup.high if speedup else None,
        "macs_ratio": record.macs_ratio,
        "realised_share": record.realised_share,
        "invariance_error": max(errors) if errors else None,
        "stop": record.stop,
        "rounds": len(record.candidate.samples) if record.candidate else 0,
        "flags": ", ".join(flag.kind for flag in record.flags),
    }
