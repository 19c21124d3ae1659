"""The memory frontier: the largest batch of a model's pass that fits the device."""

from collections.abc import Callable

from flopbench.cells import Cell
from flopbench.results import FrontierRecord, Run
from flopbench.runner.jobs import ATTEMPT
from flopbench.runner.memory import available_bytes
from flopbench.runner.process import Launch

LARGEST_BATCH = 1 << 16


def largest_that_fits(fits: Callable[[int], bool], largest: int = LARGEST_BATCH) -> int:
    """The largest n in 1…`largest` with `fits(n)`, or 0; `fits` is true up to some n and false beyond.

    Doubles until something does not fit, then halves the gap down to one part in sixteen: the exact
    figure moves with the allocator's mood, and each attempt costs a process.
    """
    low, high = 0, 1
    while high <= largest and fits(high):
        low, high = high, high * 2
    if low == 0 or high > largest:
        return low
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def find_frontiers(run: Run, timeout: float, say: Callable[[FrontierRecord], None], launch: Launch) -> None:
    """Find and record the frontier of every model, pass, dtype and mode of a run that lacks one."""
    device = run.info.environment.device
    limit = available_bytes() if device == "cpu" else None
    done = {record.key for record in run.frontiers()}
    for cell in run.info.profile.cells(device):
        for role in ("baseline", "candidate"):
            record = FrontierRecord(
                name=getattr(cell.pair, role),
                label=cell.labels[role == "candidate"],
                cell=cell.model_copy(update={"batch_size": 1}),
            )
            if record.key in done:
                continue
            done.add(record.key)
            peaks: dict[int, int | None] = {}

            def fits(
                batch: int, cell: Cell = cell, role: str = role, peaks: dict[int, int | None] = peaks
            ) -> bool:
                sized = cell.model_copy(update={"batch_size": batch})
                outcome = launch(ATTEMPT, sized, role, limit, timeout=timeout)
                if outcome.kind == "done":
                    peaks[batch] = outcome.value
                return outcome.kind == "done"

            batch = largest_that_fits(fits)
            record = record.model_copy(update={"largest_batch": batch, "peak_bytes": peaks.get(batch)})
            run.append_frontier(record)
            say(record)
