"""What a sweep looks like while it runs: live in a terminal, plain lines elsewhere."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from flopbench.cells import Cell
from flopbench.results import UNRESOLVED, CellRecord, FrontierRecord, Interval, Run


def describe_record(record: CellRecord) -> str:
    """One line on how a cell ended."""
    cell = record.cell
    what = "  ".join((cell.labels[1], *cell.words, *filter(None, [record.world])))
    if record.unresolved:
        return f"{what}  {UNRESOLVED}: {record.unresolved}"
    if record.status != "ok" or record.speedup is None:
        return f"{what}  {record.status}: {record.reason}"
    speedup = record.speedup
    line = f"{what}  {speedup.estimate:.3f}× [{speedup.low:.3f}, {speedup.high:.3f}]"
    if record.realised_share is not None:
        line += f"  {record.realised_share:.0%} of the promised {record.macs_ratio:.2f}×"
    flags = sorted({flag.kind for flag in record.flags})
    return f"{line}  ({', '.join(flags)})" if flags else line


def format_seconds(seconds: float) -> str:
    """`1:05` or `1:02:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class LogProgress:
    """A line a finished cell, without control codes: for files, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = self.done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, run: Run, cells: int, done: int) -> None:
        """See `Observer.begin`."""
        self.total, self.done = cells, done
        already = f", {done} of them already measured" if done else ""
        self._print(f"{run.info.title}: {cells} cells on {run.info.environment.device_name}{already}")

    def cell(self, cell: Cell) -> None:
        """Nothing: the line comes when the cell is done."""

    def report(self, kind: str, value: object) -> None:
        """Nothing."""

    def finished(self, record: CellRecord) -> None:
        """See `Observer.finished`."""
        self.done += 1
        self._print(f"[{self.done}/{self.total}] {describe_record(record)}")

    def frontier(self, record: FrontierRecord) -> None:
        """See `Observer.frontier`."""
        cell = record.cell
        largest = f"batch {record.largest_batch}" if record.largest_batch else "nothing"
        self._print(f"{record.label}  {cell.pass_}  {cell.dtype}  {cell.mode}  largest that fits: {largest}")

    def _print(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


class LiveProgress(LogProgress):
    """A live bar with what runs now and the time that remains, under the lines of the finished cells."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[now]}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[remaining]}", markup=False),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task("", total=None, now="starting", remaining="")
        self.current = ""
        self.start = time.monotonic()
        self.here = 0
        self.deadline: float | None = None

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, run: Run, cells: int, done: int) -> None:
        """See `Observer.begin`."""
        super().begin(run, cells, done)
        self.start = time.monotonic()
        budget = run.info.profile.budget_seconds
        self.deadline = self.start + budget if budget else None
        self.progress.update(self.task, total=cells, completed=done)

    def cell(self, cell: Cell) -> None:
        """See `Observer.cell`."""
        self.current = ", ".join((cell.labels[1], *cell.words))
        self.progress.update(self.task, now=self.current)

    def report(self, kind: str, value: object) -> None:
        """See `Observer.report`."""
        if kind == "phase":
            self.progress.update(self.task, now=f"{self.current}: {value}")
        elif kind == "rounds" and isinstance(value, tuple):
            count, speedup = value
            so_far = (
                f" {speedup.estimate:.3f}×±{speedup.half_width:.1%}" if isinstance(speedup, Interval) else ""
            )
            self.progress.update(self.task, now=f"{self.current}: round {count}{so_far}")
        self.progress.update(self.task, remaining=self._remaining())

    def finished(self, record: CellRecord) -> None:
        """See `Observer.finished`."""
        super().finished(record)
        self.here += 1
        self.progress.update(self.task, completed=self.done, remaining=self._remaining())

    def _remaining(self) -> str:
        """From the pace so far, and never beyond the budget."""
        now = time.monotonic()
        bounds = [self.deadline - now] if self.deadline else []
        if self.here:
            bounds.append((now - self.start) / self.here * (self.total - self.done))
        return f"{format_seconds(min(bounds))} left" if bounds else ""


def progress_for(console: Console) -> LogProgress:
    """The display that suits the console."""
    return LiveProgress(console) if console.is_terminal else LogProgress(console)
