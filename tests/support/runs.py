"""Synthetic runs that look like measured ones, for tests of whatever reads run folders.

Times follow a small model of a device, the larger of the work (MACs over a rate that grows with the
batch) and the launches, with lognormal noise, so speed-ups rise from launch-bound to a share of the
MACs ratio as they do on real hardware. Everything follows from `seed`.

    run = make_run(tmp_path / "run", batch_sizes=(1, 64), statuses={"*/b64/backward/*": "oom"})
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from flopbench.cells import Cell
from flopbench.models.catalog import parse_name
from flopbench.modes import COMPILING, ENGINES, DeviceKind
from flopbench.pairs import Pair
from flopbench.results import (
    CellRecord,
    Check,
    Deployment,
    Environment,
    Flag,
    ModelResult,
    Run,
    RunInfo,
    Samples,
    Serving,
    Status,
)
from flopbench.suites import Profile
from flopbench.timing.statistics import ratio_interval

# Trainable parameters and MACs of one 224×224 image: (X, E(X), H(X)).
_PARAMETERS = {
    "vit_ti16": (5_721_832, 2_866_120, 4_295_656),
    "vit_s16": (22_059_496, 11_039_656, 16_552_936),
    "vit_b16": (86_585_320, 43_311_976, 64_955_368),
    "vit_l16": (304_374_760, 152_237_544, 228_315_112),
    "vit_h14": (632_126_440, 316_146_280, 474_185_960),
    "resmlp_s24": (30_020_680, 15_063_880, 22_500_000),
    "resmlp_b24": (115_736_776, 57_972_616, 86_800_000),
    "convnext_iso_s": (22_308_712, 11_158_312, 16_700_000),
    "convnext_iso_b": (87_083_752, 43_549_288, 65_300_000),
}
_MACS = {
    "vit_ti16": (1_253_683_200, 730_708_224, 992_243_712),
    "vit_s16": (4_598_882_304, 2_507_174_400, 3_553_124_352),
    "vit_b16": (17_563_828_224, 9_197_380_608, 13_380_796_416),
    "vit_l16": (61_554_712_576, 31_808_196_608, 46_681_710_592),
    "vit_h14": (167_295_109_120, 86_449_259_520, 126_872_504_320),
    "resmlp_s24": (5_961_292_800, 2_980_646_400, 4_470_000_000),
    "resmlp_b24": (23_020_713_984, 11_452_554_240, 17_230_000_000),
    "convnext_iso_s": (4_286_367_744, 2_176_375_296, 3_230_000_000),
    "convnext_iso_b": (16_896_331_776, 8_456_745_984, 12_680_000_000),
}
_PASS_WORK = {"forward": 1.0, "backward": 2.0, "train": 3.1}

VIT_PAIRS = ("vit_s16.flop", "vit_b16.flop", "vit_b16.hybrid", "vit_l16.flop")


@dataclass(frozen=True)
class Device:
    """What the times follow from: MACs and bytes a second at a large batch, seconds a launch, noise."""

    kind: DeviceKind
    name: str
    macs_per_second: float
    launch_seconds: float
    memory_bytes: int
    noise: float = 0.01


H200 = Device("cuda", "NVIDIA H200", 1.5e14, 6e-6, 150_754_820_096)
A100 = Device("cuda", "NVIDIA A100-SXM4-40GB", 6e13, 8e-6, 42_505_273_344)
CPU = Device("cpu", "Intel Xeon @ 2.80 GHz", 8e10, 2e-6, 33_657_286_656, noise=0.02)


def environment(device: Device = H200, **changes: Any) -> Environment:
    """A plausible environment of a device, with the given fields replaced."""
    cuda = device.kind == "cuda"
    fields: dict[str, Any] = {
        "device": device.kind,
        "device_name": device.name,
        "device_memory_bytes": device.memory_bytes if cuda else None,
        "driver": "580.95.05" if cuda else None,
        "cuda": "13.0" if cuda else None,
        "cudnn": "9.13.0" if cuda else None,
        "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        "cores": 16 if cuda else 2,
        "threads": 16 if cuda else 2,
        "memory_bytes": 137_438_953_472,
        "os": "Linux 6.8 x86_64",
        "python": "3.11.9",
        "torch": "2.13.0",
        "triton": "3.5.0" if cuda else None,
        "fvcore": "0.1.5.post20221221",
        "flopbench": "0.1.0",
        "commit": "0123456789abcdef0123456789abcdef01234567",
    }
    return Environment(**{**fields, **changes})


def make_run(
    path: Path,
    *,
    device: Device = H200,
    pairs: tuple[str | Mapping[str, Any], ...] = VIT_PAIRS,
    batch_sizes: tuple[int, ...] = (1, 8, 64),
    passes: tuple[str, ...] = ("forward", "backward"),
    dtypes: tuple[str, ...] | None = None,
    modes: tuple[str, ...] = ("eager", "compile"),
    axes: Mapping[str, Any] | None = None,
    replicates: int = 1,
    rounds: int = 12,
    seed: int = 0,
    overhead: float = 0.25,
    slowdown: float | Mapping[str, float] = 1.0,
    noise: float | None = None,
    statuses: Mapping[str, Status] | None = None,
    reason: str = "",
    flags: Mapping[str, Flag] | None = None,
    invariance_error: float = 3e-6,
    ours: float | None = None,
    watts: tuple[float, float] | None = None,
    serving: int = 0,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    info: Mapping[str, Any] | None = None,
    **environment_changes: Any,
) -> Run:
    """A run folder at `path`, complete with raw samples.

    Args:
        path: folder to create; its name is the run's id.
        device: `H200`, `A100`, `CPU`, or one of your own.
        pairs: as in a suite file, e.g. `vit_b16.hybrid`.
        batch_sizes: images a batch.
        passes: as in a suite file.
        dtypes: bf16 on CUDA and fp32 on a CPU by default.
        modes: as in a suite file.
        axes: values of further axes, by their plural, as in a suite file.
        replicates: records a cell.
        rounds: rounds a cell, each of two calls a model.
        seed: of the noise.
        overhead: what the candidate's elementwise work adds to its time, as a share of the baseline's
            work at batch 64; 0 realises all that the MACs promise.
        slowdown: factor on the candidate's times, for all cells or by pattern of the cell's id.
        noise: standard deviation of the log times; the device's own by default.
        statuses: pattern of the cell's id → status; `ok` where none matches.
        reason: of every cell that is not `ok`; a plausible one by default.
        flags: pattern of the cell's id → an extra flag. Launch-bound cells have theirs anyway.
        invariance_error: of every invariant candidate.
        ours: how many times as fast as torch's own our kernels are, which then run in compiled cells unless
            eager ones are asked for; without it what ran is not recorded, as in runs of schema 1.
        watts: average power of the baseline and of the candidate; without it energy is not known.
        serving: calls of which forward cells have latencies; without it they have no serving figures.
        models: name of a model → fields of its `ModelResult` to replace.
        info: fields of `RunInfo` to replace.
        environment_changes: fields of the environment to replace.
    """
    profile = Profile.model_validate(
        {
            "pairs": pairs,
            "batch_sizes": batch_sizes,
            "passes": passes,
            "dtypes": dtypes or (("bf16",) if device.kind == "cuda" else ("fp32",)),
            "modes": modes,
            "replicates": replicates,
            **(axes or {}),
        }
    )
    fields: dict[str, Any] = {
        "id": path.name,
        "suite": "vit",
        "title": "Vision transformers",
        "suite_digest": hashlib.sha256(repr((pairs, batch_sizes, passes)).encode()).hexdigest()[:12],
        "profile": profile,
        "command": f"flopbench run --suite vit --device {device.kind}",
        "created": "2026-11-23T12:00:00+00:00",
        "environment": environment(device, **environment_changes),
    }
    run = Run.create(path, RunInfo(**{**fields, **(info or {})}))
    lines = []
    for replicate in range(replicates):
        for number, cell in enumerate(profile.cells(device.kind)):
            status = _matching(statuses or {}, cell.id, "ok")
            if status == "ok":
                record = _measured(
                    cell,
                    device,
                    np.random.default_rng((seed, replicate, number)),
                    replicate=replicate,
                    rounds=rounds,
                    overhead=overhead,
                    slowdown=slowdown
                    if isinstance(slowdown, float | int)
                    else _matching(slowdown, cell.id, 1.0),
                    noise=device.noise if noise is None else noise,
                    flag=_matching(flags or {}, cell.id, None),
                    invariance_error=invariance_error,
                    ours=ours,
                    watts=watts or (None, None),
                    serving=serving,
                    models=models or {},
                )
            else:
                record = CellRecord(
                    cell=cell,
                    replicate=replicate,
                    status=status,
                    reason=reason or _REASONS[status],
                    started="2026-11-23T12:00:00+00:00",
                    wall_seconds=1.5,
                )
            lines.append(record.model_dump_json(by_alias=True) + "\n")
    # One write for all: `Run.append` waits for the disk on every line.
    (path / "cells.jsonl").write_text("".join(lines), encoding="utf-8")
    return run


# How much larger errors are than those of torch, by what an engine computes in.
_ENGINE_ERROR = {"int8": 1e4, "bf16": 1e3}

_REASONS: dict[Status, str] = {
    "failed": "vit_b16.flop is not invariant: error 0.31 on noise, tolerance 0.001",
    "oom": "out of memory: tried to allocate 12.00 GiB",
    "timeout": "no result within 1800 s",
    "crashed": "the worker died with signal 9 (SIGKILL)",
    "skipped": "the budget was spent",
}


def _matching(patterns: Mapping[str, Any], cell: str, default: Any) -> Any:
    return next((value for pattern, value in patterns.items() if fnmatchcase(cell, pattern)), default)


def _measured(
    cell: Cell,
    device: Device,
    rng: np.random.Generator,
    *,
    replicate: int,
    rounds: int,
    overhead: float,
    slowdown: float,
    noise: float,
    flag: Flag | None,
    invariance_error: float,
    ours: float | None,
    watts: tuple[float | None, float | None],
    serving: int,
    models: Mapping[str, Mapping[str, Any]],
) -> CellRecord:
    compiled = cell.mode in COMPILING
    engine = cell.mode in ENGINES
    in_cpp = compiled and cell.impl != "eager"
    gain = ours if ours and in_cpp else 1.0
    baseline, candidate = cell.pair.baseline, cell.pair.candidate
    work_x = _work_seconds(baseline, cell, device)
    work_e = _work_seconds(candidate, cell, device) + overhead * (0.5 if compiled else 1.0) * work_x
    host_x = device.launch_seconds * (180 if compiled else 400) * _PASS_WORK[cell.pass_]
    host_e = host_x * 1.3
    cuda = device.kind == "cuda"
    bound = cuda and host_e >= 0.9 * work_e
    samples = [
        _samples(rng, max(work, host) * factor, rounds, noise)
        for work, host, factor in ((work_x, host_x, 1.0 / gain), (work_e, host_e, slowdown / gain))
    ]
    flags = [flag] if flag else []
    if bound:
        flags.append(
            Flag(
                kind="launch-bound",
                message="candidate: the host takes as long to launch the work as the device to do it",
                remedy="a larger batch, or --mode cuda-graph",
            )
        )
    invariant = parse_name(candidate).invariant
    scale = _ENGINE_ERROR.get(cell.dtype, 0.1)
    labels = cell.labels
    results = [
        ModelResult(
            name=name,
            label=label,
            parameters=_figure(_PARAMETERS, name),
            macs=_macs(name, cell),
            peak_bytes=_peak_bytes(name, cell),
            compile_seconds=12.5 if compiled else None,
            watts=power,
            joules=power and power * float(np.median(rows)),
            serving=_serving(name, rows[0][0], serving) if serving and cell.pass_ == "forward" else None,
            samples=rows,
            host_samples=_samples(rng, host, rounds, noise) if cuda else (),
            implementations={"linear": {"cpp" if in_cpp else "torch": "asked for"}}
            if ours or engine
            else None,
            deployed=_deployment(name, cell) if engine else None,
        )
        for name, label, rows, host, power in zip(
            (baseline, candidate), labels, samples, (host_x, host_e), watts, strict=True
        )
    ]
    results = [result.model_copy(update=models.get(result.name, {})) for result in results]
    return CellRecord(
        cell=cell,
        replicate=replicate,
        status="ok",
        started="2026-11-23T12:00:00+00:00",
        wall_seconds=5.0,
        inputs="int64 [4, 16], mask: bool [4, 16]" if cell.pair.inputs else "",
        baseline=results[0],
        candidate=results[1],
        speedup=ratio_interval(samples[0], samples[1]),
        stop="precision",
        check=Check(
            random=invariance_error if invariant else None,
            photo=invariance_error / 2 if invariant else None,
            in_cell=invariance_error * scale if engine and invariant else None,
            agreement=4e-6 * scale if engine else None,
            agreements={"baseline": 2e-6 * scale, "candidate": 4e-6 * scale} if engine else {},
            tolerance=1e-3,
            in_cell_tolerance=1e-1,
        ),
        flags=tuple(flags),
    )


def _deployment(name: str, cell: Cell) -> Deployment:
    weights = 4 * _figure(_PARAMETERS, name)
    return Deployment(
        engine=cell.mode,
        version="1.2.3",
        provider="CPU",
        threads=2,
        export_seconds=5.0,
        load_seconds=0.1 + weights * 1e-9,
        disk_bytes=weights + 40_000,
        first_call_seconds=0.2,
    )


def _figure(table: Mapping[str, tuple[int, int, int]], name: str) -> int:
    """The figure of a version; of a larger group than mirroring what goes down with its elements."""
    parsed = parse_name(name)
    plain, equivariant, hybrid = table.get(parsed.base, (10_000_000, 5_000_000, 7_500_000))
    if not parsed.has_symmetry:
        return plain
    larger = parsed.version.about.divisor // 2
    own = equivariant if parsed.version.schedule == "equivariant" else hybrid
    return own if larger == 1 else own - (own - own // larger) // 2


def _macs(name: str, cell: Cell) -> int:
    """Of one image: what is not halved grows with the square of its pixels, all else with these."""
    parsed = parse_name(name)
    if parsed.spec is None:
        return _figure(_MACS, name)
    passes = parsed.version.about.divisor if parsed.version.averaged else 1
    plain, equivariant = (_figure(_MACS, f"{parsed.base}{suffix}") for suffix in ("", ".flop"))
    own = plain if parsed.version.averaged else _figure(_MACS, name)
    whole, more = max(0, 2 * equivariant - plain), math.prod(cell.image_size) / 224**2
    return round(passes * ((own - whole) * more + whole * more**2))


def _work_seconds(name: str, cell: Cell, device: Device) -> float:
    images = cell.batch_size
    # Small batches leave units idle; fp32 runs at a quarter of the rate of the short types on a GPU.
    rate = device.macs_per_second * images / (images + 2)
    slow = 4.0 if device.kind == "cuda" and cell.dtype == "fp32" else 1.0
    return _macs(name, cell) * images / rate * _PASS_WORK[cell.pass_] * slow


def _peak_bytes(name: str, cell: Cell) -> int:
    size = 4 if cell.dtype in ("fp32", "tf32") else 2
    copies = 1 if cell.pass_ == "forward" else 2
    activations = _macs(name, cell) // 400 * cell.batch_size * (1 if cell.pass_ == "forward" else 6)
    return _figure(_PARAMETERS, name) * size * copies + activations


def _samples(rng: np.random.Generator, seconds: float, rounds: int, noise: float) -> Samples:
    values = seconds * np.exp(rng.normal(0.0, noise, (rounds, 2)))
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in values)


def _serving(name: str, seconds: float, calls: int) -> Serving:
    """Latencies are skewed to the right; a file is read at a gigabyte a second."""
    noise = np.random.default_rng(0).exponential(0.1, calls)
    weights = 4 * _figure(_PARAMETERS, name)
    return Serving(
        latencies=tuple(float(f"{seconds * (1.1 + more):.6g}") for more in noise),
        first_call_seconds=20 * seconds,
        load_seconds=0.02 + weights * 1e-9,
        disk_bytes=weights + 40_000,
    )


def hostile_pair(text: str) -> Pair:
    """A pair whose candidate is a foreign network with `text` in its name (anything importable may be)."""
    return Pair(baseline="vit_s16", candidate=f"timm:{text}")
