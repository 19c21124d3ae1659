"""The job of a worker process: time a pair, then run it under torch.profiler."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.kernels import Ran
from flopbench.models.averaged import layer_name
from flopbench.modes import CAPTURING
from flopbench.private import looking_on, show_kernels_to_profiler
from flopbench.profiling.events import LAYER, STEP, Summary, folded, summarise
from flopbench.profiling.roofline import Work
from flopbench.results import ModelProfile, Peaks, ProfileRecord
from flopbench.runner.process import Report
from flopbench.timing.bench import Bench
from flopbench.timing.clock import Clock
from flopbench.timing.environment import describe
from flopbench.timing.peaks import measure_peaks
from flopbench.timing.workload import Workload

# Calls that are profiled, at least and at most. Kernels take as long in every call, and an eager network in
# training has tens of thousands of events per call, which take longer to read than to record.
CALLS = {"cpu": (4, 24), "cuda": (4, 8)}
NORMS = ("norm", "affine")


class ProfileJob(NamedTuple):
    """What to profile and how long.

    `seconds` bound the timing of the pair and then, again, the profiled calls of each model; `peaks`
    are measured where they are not given. `trace` and `stacks` are files to write, with the role added.
    """

    cell: Cell
    seconds: float
    peaks: Peaks | None = None
    trace: Path | None = None
    stacks: Path | None = None


def profile_pair(report: Report, job: ProfileJob) -> ProfileRecord:
    """Time both models in alternation without the profiler, then profile one after the other.

    Raises:
        WrongOutputError: of a model that computes something else, no profile is of use.
    """
    cell, tell = job.cell, partial(report, "phase")
    if cell.device == "cpu" and cell.mode != "eager":
        show_kernels_to_profiler()
    tell("peaks")
    peaks = job.peaks or measure_peaks(cell.device, [cell.dtype])
    bench = Bench.of(cell, tell)
    bench.first_calls()
    bench.check()
    bench.warm_up(0.1 * job.seconds)
    rounds = bench.sample(seconds=job.seconds).rounds
    profiles = {}
    calls = 0
    for role, workload in bench.workloads.items():
        tell(f"profile the {role}")
        least, most = CALLS[cell.device]
        calls = max(least, min(most, int(job.seconds / 2 / max(bench.pace[role], 1e-6))))
        summary = _profile(workload, bench.clock, cell, calls, job, role)
        seconds = median(value for row in getattr(rounds, role) for value in row)
        profiles[role] = _model_profile(role, cell, peaks, summary, seconds, bench.ran[role])
    return ProfileRecord.model_validate(
        {
            "cell": cell,
            "speedup": rounds.speedup,
            "calls": calls,
            "peaks": peaks,
            "environment": describe(cell.device),
            **profiles,
        }
    )


def _profile(workload: Workload, clock: Clock, cell: Cell, calls: int, job: ProfileJob, role: str) -> Summary:
    cuda = cell.device == "cuda"
    if cuda and cell.mode in CAPTURING:
        # As torch does where graphs are switched on for all: they do not survive that CUPTI is closed and
        # opened again, and two models make two profiles.
        os.environ.update(TEARDOWN_CUPTI="0", DISABLE_CUPTI_LAZY_REINIT="1")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with ExitStack() as stack:
        if cell.mode == "eager":
            stack.enter_context(_marked_layers(workload.model))
        profiler = stack.enter_context(profile(activities=activities, acc_events=True))
        # The first call pays for the profiler's own start; without the mark it is not counted.
        workload.run()
        for _ in range(calls):
            prepared = workload.prepare()
            clock.synchronise()
            with record_function(STEP):
                workload.step(prepared)
                clock.synchronise()
    if job.trace:
        _export_trace(profiler, _with_role(job.trace, role))
    norms = [
        layer_name(workload.model, path)
        for path, module in workload.model.named_modules()
        if type(module).__name__.lower().endswith(NORMS)
    ]
    summary = summarise(profiler.events() or [], cuda=cuda, norms=norms)
    if cuda and not summary.operators:
        raise RuntimeError(
            "the profiler saw no kernel: CUPTI is missing, or another profiler (ncu, nsys) holds the device"
        )
    if job.stacks:
        _with_role(job.stacks, role).write_text(folded(summary.stacks), encoding="utf-8")
    return summary


def _model_profile(
    role: str, cell: Cell, peaks: Peaks, summary: Summary, seconds: float, ran: Ran
) -> ModelProfile:
    counted: dict[str, Any] = {}
    try:
        work = Work(getattr(cell.pair, role), cell)
    except FlopbenchError as error:
        # What cannot be counted still takes its time somewhere.
        counted["not_counted"] = str(error)
    else:
        counted["flops"] = 2.0 * work.macs
        counted["bytes_moved"] = float(work.bytes_moved(cell.mode))
        counted["uncounted_operators"] = work.uncounted
        counted["bound"] = work.bound(peaks)
    return ModelProfile(
        label=cell.labels[role == "candidate"],
        seconds=seconds,
        groups=summary.groups,
        busy_seconds=summary.busy,
        operators=summary.operators,
        parts=summary.parts,
        implementations=ran,
        **counted,
    )


@contextmanager
def _marked_layers(model: nn.Module) -> Iterator[None]:
    """Within it, the forward pass of every layer is a range of the profile, named after its path."""
    open_ranges: list[Any] = []
    handles = []

    def enter(path: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            range_ = record_function(LAYER + path)
            range_.__enter__()
            open_ranges.append(range_)

        return hook

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    for path, module in model.named_modules():
        if path:
            handles.append(module.register_forward_pre_hook(looking_on(enter(layer_name(model, path)))))
            handles.append(module.register_forward_hook(looking_on(leave)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_role(path: Path, role: str) -> Path:
    return path.with_name(f"{path.stem}-{role}{path.suffix}")


def _export_trace(profiler: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / (path.name if path.suffix in (".json", ".gz") else f"{path.name}.json")
        profiler.export_chrome_trace(str(temporary))
        os.replace(temporary, path)
