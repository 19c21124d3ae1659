"""The sweep: cells in order, each in its own process, each recorded as soon as it is done."""

import os
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from flopbench.cells import AXES, Cell
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.modes import ENGINES, DeviceKind, DType
from flopbench.results import (
    CellRecord,
    Environment,
    Flag,
    FrontierRecord,
    Peaks,
    Run,
    Status,
)
from flopbench.runner.beforehand import Beforehand
from flopbench.runner.frontier import find_frontiers
from flopbench.runner.jobs import INSPECT, MEASURE, PEAKS, PROBE, Plan
from flopbench.runner.process import Launch, Outcome, OutcomeKind, Report, run_job

# A cell is not begun with less time than this left: importing, building and one round take longer.
LEAST_SECONDS = 4.0
_SPENT = "the budget was spent before the cell was done"

# The device that a kind of kernels is not for.
_NOT_ON = {"triton": "cpu", "cpp": "cuda", "inductor": "cuda"}

STATUS: dict[OutcomeKind, Status] = {
    "error": "failed",
    "usage": "failed",
    "oom": "oom",
    "crashed": "crashed",
    "timeout": "timeout",
}
"""What a record says of a job that did not end well."""


class Observer(Protocol):
    """Who watches a sweep; `runner.progress` has one for terminals and one for logs."""

    def begin(self, run: Run, missing: Sequence[Cell], done: int) -> None:
        """The sweep starts, with these cells to measure and so many already measured."""
        ...

    def cell(self, cell: Cell) -> None:
        """A cell starts."""
        ...

    def report(self, kind: str, value: object) -> None:
        """The worker tells how far it is; ("tick", None) comes several times a second.

        ("beforehand", cells) comes before a cell starts, when these are compiled side by side.
        """
        ...

    def finished(self, record: CellRecord) -> None:
        """A cell has ended and its record is on disk."""
        ...

    def frontier(self, record: FrontierRecord) -> None:
        """A memory frontier was found and is on disk."""
        ...


def launcher(threads: int | None = None) -> Launch:
    """`run_job` in processes that compute with so many threads; by default with as many as torch takes.

    Raises:
        FlopbenchError: more threads than the machine has cores, or none.
    """
    check_threads(threads)
    return partial(run_job, threads=threads)


def check_threads(threads: int | None) -> None:
    """Raise unless a CPU can compute with so many threads.

    Raises:
        FlopbenchError: more threads than the machine has cores, or none.
    """
    cores = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= cores:
        raise FlopbenchError(f"threads {threads}: this machine has {cores} cores, choose 1 to {cores}")


def probe_environment(device: str | None, launch: Launch = run_job) -> Environment:
    """The environment as a worker sees it; the device asked for, else a GPU, else the CPU.

    Raises:
        FlopbenchError: that device is not there, or the worker could not start.
    """
    outcome = launch(PROBE, device, timeout=300)
    if outcome.kind != "done":
        raise FlopbenchError(str(outcome.value))
    return outcome.value


def probe_peaks(device: DeviceKind, dtypes: tuple[DType, ...]) -> Peaks:
    """The device's peaks, measured in a worker.

    Raises:
        NothingMeasuredError: they could not be.
    """
    outcome = run_job(PEAKS, device, dtypes, timeout=600)
    if outcome.kind != "done":
        raise NothingMeasuredError(f"the peaks of {device} could not be measured: {outcome.value}")
    return outcome.value


def shard_of(cells: list[Cell], shard: tuple[int, int] | None) -> list[Cell]:
    """Every n-th cell from the i-th on, for shard (i, n) with 1 ≤ i ≤ n: the same on every machine.

    Cells that differ in their kernels alone stay together: their times are compared with one another.

    Raises:
        FlopbenchError: i is not in 1…n.
    """
    if shard is None:
        return cells
    index, count = shard
    if not 1 <= index <= count:
        raise FlopbenchError(f"--shard {index}/{count}: the first number must be between 1 and the second")
    groups: dict[Cell, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.model_copy(update={"impl": "auto"}), []).append(cell)
    return [cell for group in list(groups.values())[index - 1 :: count] for cell in group]


def check_cells(cells: Iterable[Cell]) -> None:
    """Raise for what cannot run.

    Raises:
        FlopbenchError: a dtype or mode that does not exist on the device; kernels that are for the other
            device; impl inductor in a compiled mode, or kernels of flopbench's in an engine.
    """
    for cell in cells:
        if refusal := cell.refusal(cell.device):
            raise FlopbenchError(refusal)
        if cell.mode in ENGINES and cell.impl not in ("auto", "eager"):
            raise FlopbenchError(
                f"impl {cell.impl} cannot be exported: in mode {cell.mode} use --impl auto, the engine's "
                "idiom, or --impl eager, torch's operations as they stand"
            )
        # Triton's interpreter stands in for a GPU where it is asked for.
        interpreted = cell.impl == "triton" and "TRITON_INTERPRET" in os.environ
        if cell.device == _NOT_ON.get(cell.impl) and not interpreted:
            raise FlopbenchError(f"impl {cell.impl} does not run on device {cell.device}: use --impl auto")
        if cell.impl == "inductor" and cell.mode != "eager":
            remedy = "use --impl auto or --mode eager"
            raise FlopbenchError(f"impl inductor cannot run within what mode {cell.mode} compiles: {remedy}")


def sweep(
    run: Run,
    observer: Observer,
    again: Sequence[tuple[Cell, int]] = (),
    *,
    launch: Launch = run_job,
    flags: tuple[Flag, ...] = (),
) -> None:
    """Measure what `run` lacks. Each record is on disk before the next cell starts.

    An interrupt (Ctrl-C) or the end of the budget leaves the cells not begun as `skipped`. A record that a
    killed sweep left unfinished is set aside with a warning, and its cell measured again.

    Args:
        run: whose profile says what to measure.
        observer: told how far it is.
        again: further replicates of some cells, to be measured instead.
        launch: what calls the jobs, by default each in a fresh process.
        flags: of every record, for what makes all of them less trustworthy.

    Raises:
        FlopbenchError: another process measures this run.
        NothingMeasuredError: there was something to measure and no cell ended well.
        KeyboardInterrupt: after what is left was recorded as skipped.
    """
    profile, device = run.info.profile, run.info.environment.device
    cells = shard_of(list(profile.cells(device)), run.info.shard)
    check_cells(cells)
    jobs = list(again) or [(cell, replicate) for replicate in range(profile.replicates) for cell in cells]
    with run.locked():
        _measure(_Sweep(run, observer, launch, flags), jobs)


def _measure(sweeper: "_Sweep", jobs: list[tuple[Cell, int]]) -> None:
    run, observer = sweeper.run, sweeper.observer
    run.set_torn_lines_aside()
    missing = _unfinished(run, jobs)
    observer.begin(run, [cell for cell, _ in missing], len(jobs) - len(missing))
    try:
        while missing:
            cell, replicate = missing[0]
            sweeper.take(cell, replicate, ahead=[cell for cell, _ in missing])
            missing.pop(0)
    except KeyboardInterrupt:
        # It may have come just after the last record.
        for cell, replicate in _unfinished(run, missing):
            sweeper.keep(_without_times(cell, replicate, "skipped", "interrupted"))
        raise
    if run.info.profile.memory_frontier:
        find_frontiers(run, run.info.profile.cell_timeout, observer.frontier, sweeper.launch)
    if jobs and not any(record.status == "ok" for record in run.records()):
        reasons = {record.reason for record in run.records()}
        raise NothingMeasuredError(f"no cell could be measured: {'; '.join(sorted(reasons))[:500]}")


def _unfinished(run: Run, jobs: list[tuple[Cell, int]]) -> list[tuple[Cell, int]]:
    finished = {record.key for record in run.records() if record.status != "skipped"}
    return [job for job in jobs if (job[0].id, job[1]) not in finished]


class _Sweep:
    """One sweep's state: the deadline, and what is known of each pair."""

    def __init__(self, run: Run, observer: Observer, launch: Launch, flags: tuple[Flag, ...]) -> None:
        self.run, self.observer, self.launch, self.flags = run, observer, launch, flags
        budget = run.info.profile.budget_seconds
        self.deadline = time.monotonic() + budget if budget else None
        self.facts: dict[tuple[object, ...], Outcome] = {}
        self.beforehand = Beforehand(run.info.environment, observer.report, launch)

    def take(self, cell: Cell, replicate: int, ahead: Sequence[Cell]) -> None:
        """Measure the first of the cells `ahead`, or say why not, and keep the record."""
        profile = self.run.info.profile
        # What is compiled in one half of what is left is measured in the other.
        self.beforehand.compile(ahead, min(self._left() / 2, profile.cell_timeout))
        left = self._left()
        if left < LEAST_SECONDS:
            self.keep(_without_times(cell, replicate, "skipped", "the budget was spent"))
            return
        self.observer.cell(cell)
        begun = time.monotonic()
        facts = self._inspect(cell, min(left, profile.cell_timeout))
        if facts.kind == "timeout" and left < profile.cell_timeout:
            self.keep(_without_times(cell, replicate, "skipped", _SPENT, begun))
            return
        if facts.kind != "done" or facts.value.failure:
            reason = facts.value.failure if facts.kind == "done" else facts.value
            status = STATUS.get(facts.kind, "failed")
            self.keep(_without_times(cell, replicate, status, reason, begun))
            return
        plan = Plan(
            precision=profile.precision,
            seconds=profile.cell_seconds,
            allowance=left / len(ahead),
            serving=profile.serving,
        )
        left -= time.monotonic() - begun
        timeout = min(left, profile.cell_timeout)
        outcome = self.launch(
            MEASURE,
            cell,
            replicate,
            facts.value,
            plan,
            timeout=max(timeout, 0.1),
            on_report=self.observer.report,
        )
        if outcome.kind == "done":
            processes = self.beforehand.processes_of(cell)
            self.keep(outcome.value.model_copy(update={"compiled_beforehand": processes}))
        elif outcome.kind == "timeout" and timeout < profile.cell_timeout:
            self.keep(_without_times(cell, replicate, "skipped", _SPENT, begun))
        else:
            self.keep(_without_times(cell, replicate, STATUS[outcome.kind], outcome.value, begun))

    def keep(self, record: CellRecord) -> None:
        """Write a record and tell the observer."""
        record = record.model_copy(update={"flags": (*record.flags, *self.flags)})
        self.run.append(record)
        self.observer.finished(record)

    def _left(self) -> float:
        """Seconds of the budget that are left; infinite where there is none."""
        return self.deadline - time.monotonic() if self.deadline else float("inf")

    def _inspect(self, cell: Cell, timeout: float) -> Outcome:
        networks = (getattr(cell, axis.field) for axis in AXES.values() if axis.about == "network")
        key = (cell.pair, cell.num_classes, *networks)
        if key not in self.facts:
            report: Report = self.observer.report
            report("phase", "verify and count")
            self.facts[key] = self.launch(INSPECT, cell, timeout=timeout, on_report=report)
        return self.facts[key]


def _without_times(
    cell: Cell, replicate: int, status: Status, reason: str, begun: float | None = None
) -> CellRecord:
    return CellRecord(
        cell=cell,
        replicate=replicate,
        status=status,
        reason=reason,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=0.0 if begun is None else round(time.monotonic() - begun, 3),
    )
