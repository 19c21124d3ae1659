"""What a sweep looks like while it runs: live in a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from statistics import mean
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from flopbench.cells import Cell
from flopbench.modes import COMPILING, ENGINES
from flopbench.report import text
from flopbench.results import UNRESOLVED, CellRecord, FrontierRecord, Interval, Run
from flopbench.runner.beforehand import MODES
from flopbench.runner.needs import warnings


def describe_record(record: CellRecord) -> str:
    """One line on how a cell ended."""
    cell = record.cell
    what = "  ".join(dict.fromkeys((cell.pair_label, *cell.words, *filter(None, [record.world]))))
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


class Pace:
    """How long the cells to come take, learnt from those that are done.

    Cells are compared with those of their mode alone. The smaller networks come first, and compiling or
    exporting takes longer the more blocks there are: of a larger network it is expected to take as much
    longer as it has more blocks, and the rest as long. Compiling beforehand counts, too.
    """

    def __init__(self) -> None:
        self._rest: dict[str, list[float]] = {}
        self._compiling: dict[tuple[str, str], list[float]] = {}
        self._beforehand: set[Cell] = set()
        self._beforehand_seconds: list[float] = []

    def finished(self, record: CellRecord, seconds: float) -> None:
        """A cell took so long, all told; what was not measured tells nothing."""
        if record.status != "ok":
            return
        cell = record.cell
        compiling = sum(record.phases.get(phase, 0.0) for phase in ("compile", "export"))
        self._rest.setdefault(cell.mode, []).append(seconds - compiling)
        self._compiling.setdefault((cell.mode, cell.pass_), []).append(compiling / _units(cell))

    def compiled(self, cells: Sequence[Cell], seconds: float) -> None:
        """Cells were compiled beforehand, and it took so long."""
        self._beforehand.update(cells)
        self._beforehand_seconds.append(seconds / len(cells))

    def remaining(self, cells: Sequence[Cell]) -> float | None:
        """Seconds for all of `cells`; None where no cell of the mode of one of them is done."""
        if not all(cell.mode in self._rest for cell in cells):
            return None
        return sum(map(self._seconds, cells))

    def _seconds(self, cell: Cell) -> float:
        # Of another pass, where none in this one is compiled yet.
        of_mode = [mean(some) for (mode, _), some in self._compiling.items() if mode == cell.mode]
        of_pass = self._compiling.get((cell.mode, cell.pass_))
        seconds = mean(self._rest[cell.mode]) + mean(of_pass or of_mode) * _units(cell)
        if cell.mode in MODES and cell not in self._beforehand and self._beforehand_seconds:
            seconds += mean(self._beforehand_seconds)
        return seconds


def _units(cell: Cell) -> int:
    """What compiling a cell's networks is proportional to: the blocks of one, or one where all are alike."""
    spec = cell.pair.names[1].spec
    if cell.mode == "compile-blocks" or spec is None:
        return 1
    own = spec.config.get("depths", (spec.config.get("depth", 1),))
    return cell.depth or sum(own)


class LogProgress:
    """A line per finished cell, without control codes: for files, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = self.done = 0
        self.pace = Pace()
        self._beforehand: Sequence[Cell] = ()
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, run: Run, missing: Sequence[Cell], done: int) -> None:
        """See `Observer.begin`."""
        self.total, self.done, self.missing = len(missing) + done, done, list(missing)
        compiled = sum(cell.mode in COMPILING for cell in missing)
        exported = sum(cell.mode in ENGINES for cell in missing)
        parts = [f"{text.counted(self.total, 'cell')} on {run.info.environment.device_name}"]
        parts += [f"{done} of them already measured"] if done else []
        parts += [f"{compiled} to compile"] if compiled else []
        parts += [f"{exported} to export"] if exported else []
        if budget := run.info.profile.budget_seconds:
            parts.append(f"at most {text.clock(budget)}: what does not fit is skipped")
        for line in warnings(missing, run.info.environment):
            self._print(line, style="yellow")
        self._print(f"{run.info.title}: {', '.join(parts)}")

    def cell(self, cell: Cell) -> None:
        """The line comes when the cell is done."""
        now = time.monotonic()
        if self._beforehand:
            self.pace.compiled(self._beforehand, now - self._since)
            self._beforehand = ()
        self._since = now

    def report(self, kind: str, value: object) -> None:
        """See `Observer.report`; of a cell nothing."""
        if kind == "beforehand" and isinstance(value, tuple):
            self._beforehand, self._since = value, time.monotonic()
            processes = "as many processes" if len(value) > 1 else "a process"
            self._print(f"compiling {text.counted(len(value), 'cell')} beforehand, in {processes}")

    def finished(self, record: CellRecord) -> None:
        """See `Observer.finished`."""
        self.done += 1
        self.pace.finished(record, time.monotonic() - self._since)
        self.missing.remove(record.cell)
        self._print(f"[{self.done}/{self.total}] {describe_record(record)}")

    def frontier(self, record: FrontierRecord) -> None:
        """See `Observer.frontier`."""
        cell = record.cell
        largest = f"batch {record.largest_batch}" if record.largest_batch else "nothing"
        self._print(f"{record.label}  {cell.pass_}  {cell.dtype}  {cell.mode}  largest that fits: {largest}")

    def _print(self, line: str, style: str = "") -> None:
        self.console.print(Text(line, style=style), soft_wrap=True)


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
        self.deadline: float | None = None

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, run: Run, missing: Sequence[Cell], done: int) -> None:
        """See `Observer.begin`."""
        super().begin(run, missing, done)
        budget = run.info.profile.budget_seconds
        self.deadline = time.monotonic() + budget if budget else None
        self.progress.update(self.task, total=self.total, completed=done)

    def cell(self, cell: Cell) -> None:
        """See `Observer.cell`."""
        super().cell(cell)
        self.current = ", ".join((cell.pair_label, *cell.words))
        self.progress.update(self.task, now=self.current)

    def report(self, kind: str, value: object) -> None:
        """See `Observer.report`."""
        super().report(kind, value)
        if kind == "beforehand":
            self.progress.update(self.task, now="compiling")
        elif kind == "phase":
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
        self.progress.update(self.task, completed=self.done, remaining=self._remaining())

    def _remaining(self) -> str:
        """What is expected, and never beyond the budget; where nothing can be said yet, the budget alone."""
        now = time.monotonic()
        budget = self.deadline - now if self.deadline else None
        expected = self.pace.remaining(self.missing)
        if expected is None:
            return f"at most {text.clock(budget)} left" if budget else ""
        # What runs now has run for a while.
        expected -= now - self._since if self.missing else 0.0
        return f"{text.clock(expected if budget is None else min(expected, budget))} left"


class NotebookProgress(LogProgress):
    """One output of a notebook's cell, with a line per finished cell, and below what runs now.

    It is text, updated in place: what is shown at the end is what a saved notebook shows.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._lines: list[str] = []
        self._now = ""
        self._shown_at = 0.0
        self._display: Any = None

    def __enter__(self) -> Self:
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        self._display = display(_Text(""), display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._now = ""
        self._show()

    def cell(self, cell: Cell) -> None:
        """See `Observer.cell`."""
        super().cell(cell)
        self._now = f"[{self.done + 1}/{self.total}] {', '.join((cell.pair_label, *cell.words))} …"
        self._show()

    def report(self, kind: str, value: object) -> None:
        """See `Observer.report`; that time passes is shown once a second."""
        super().report(kind, value)
        if kind == "phase":
            self._now = f"{self._now.partition(' …')[0]} … {value}"
        if time.monotonic() - self._shown_at > 1:
            self._show()

    def _print(self, line: str, style: str = "") -> None:
        self._lines.append(line)
        self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        self._display.update(_Text("\n".join(filter(None, [*self._lines, self._now]))))


class _Text:
    """Plain text, without the quotes that a notebook shows around a string."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def progress_for(console: Console) -> LogProgress:
    """The display that suits the console."""
    if console.is_jupyter and not console.quiet:
        return NotebookProgress(console)
    return LiveProgress(console) if console.is_terminal else LogProgress(console)
