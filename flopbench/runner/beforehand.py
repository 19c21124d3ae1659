"""Compiling beforehand: side by side, before anything is timed, what the next cells would compile in turn.

Compiling a whole network keeps one core busy for long, and is most of a sweep's time on a GPU. Processes that
build the models of cells and make their first calls fill the caches of inductor and Triton on disk; the
process that measures a cell finds there what it would have compiled itself. One that fails costs nothing but
its time: its cell is compiled when its turn comes. Nothing is timed meanwhile.
"""

from collections.abc import Sequence

from flopbench.cells import Cell
from flopbench.results import Environment
from flopbench.runner.jobs import COMPILE
from flopbench.runner.process import Launch, Report, run_jobs

# What max-autotune times while it compiles is part of what it compiles, and would be timed among others.
MODES = ("compile", "compile-blocks", "cuda-graph")

# Memory of a GPU that one process holds: its context, and what large networks keep for a backward pass at
# batch 64, on average. One that finds too little leaves its cell for later.
BYTES_EACH = 8 << 30

# Seconds below which it is not begun: a whole network would hardly be done.
WORTH_IT = 30.0


def processes_for(environment: Environment) -> int:
    """How many processes may compile side by side on this machine; 0 where none should.

    On a CPU none do: they would compute with the cores and the memory that all the others want too, and the
    few kernels of a block, which is compiled once there, are little to share out.
    """
    if environment.device == "cpu":
        return 0
    return min(environment.cores, (environment.device_memory_bytes or 0) // BYTES_EACH)


class Beforehand:
    """Which cells were compiled beforehand, and the compiling of those to come."""

    def __init__(self, environment: Environment, report: Report, launch: Launch) -> None:
        self.processes, self.cores = processes_for(environment), environment.cores
        self.report, self.launch = report, launch
        self._tried: set[Cell] = set()
        self._beside: dict[Cell, int] = {}

    def processes_of(self, cell: Cell) -> int:
        """In how many processes side by side a cell and others were compiled; 0 if it was not."""
        return self._beside.get(cell, 0)

    def compile(self, cells: Sequence[Cell], seconds: float) -> None:
        """Compile the next of `cells`, if the first of them is yet to be compiled.

        As many cells as there are processes, for `seconds` at most.
        """
        if not self._wanted(cells[0]) or self.processes < 2 or seconds < WORTH_IT:
            return
        chosen = list(dict.fromkeys(filter(self._wanted, cells)))[: self.processes]
        self._tried.update(chosen)
        threads = max(1, self.cores // len(chosen))
        self.report("beforehand", tuple(chosen))
        outcomes = run_jobs(
            COMPILE,
            [(cell, threads) for cell in chosen],
            processes=len(chosen),
            timeout=seconds,
            on_report=self.report,
            launch=self.launch,
        )
        done = [cell for cell, outcome in zip(chosen, outcomes, strict=True) if outcome.kind == "done"]
        self._beside |= dict.fromkeys(done, len(chosen))

    def _wanted(self, cell: Cell) -> bool:
        return cell.mode in MODES and cell not in self._tried
