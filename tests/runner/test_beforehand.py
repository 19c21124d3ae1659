"""What is compiled before anything is timed: which cells, by how many processes, and for how long."""

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flopbench.cells import Cell
from flopbench.kernels.inductor import missing_compiler
from flopbench.pairs import Pair
from flopbench.results import CellRecord, Run
from flopbench.runner import beforehand
from flopbench.runner.jobs import COMPILE, INSPECT
from flopbench.runner.process import Launch, Outcome, OutcomeKind, Report, run_job
from flopbench.runner.sweep import sweep
from flopbench.runner.worker import compile_beforehand
from flopbench.timing.bench import Bench
from tests.runner.conftest import Watcher
from tests.support import runs


@pytest.mark.parametrize(
    ("cores", "memory_gib", "processes"), [(16, 79, 9), (16, 140, 16), (4, 79, 4), (16, 6, 0)]
)
def test_cores_and_memory_bound_the_processes(cores: int, memory_gib: int, processes: int):
    gpu = runs.environment(runs.H200, cores=cores, device_memory_bytes=memory_gib << 30)
    assert beforehand.processes_for(gpu) == processes


def test_on_a_cpu_nothing_is_compiled_beforehand():
    assert beforehand.processes_for(runs.environment(runs.CPU)) == 0


class Stage:
    """Stand-ins for the processes of a sweep: what they are asked for, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.seconds: list[float] = []
        self.threads: set[int] = set()
        self.ends: Callable[[Cell], OutcomeKind] = lambda cell: "done"
        monkeypatch.setattr(beforehand, "processes_for", lambda environment: processes)
        monkeypatch.setattr(beforehand, "run_jobs", self.run_jobs)

    def run_jobs(
        self,
        job: str,
        arguments: Sequence[tuple[Cell, int]],
        *,
        processes: int,
        timeout: float,
        on_report: Report,
        launch: Launch,
    ) -> list[Outcome]:
        assert launch == self.run_job
        assert job == COMPILE
        assert processes == len(arguments)
        self.asked.append(("compile", *(name(cell) for cell, _ in arguments)))
        self.seconds.append(timeout)
        self.threads |= {threads for _, threads in arguments}
        return [Outcome(self.ends(cell), None) for cell, _ in arguments]

    def run_job(self, job: Any, *arguments: Any, **options: Any) -> Outcome:
        cell = arguments[0]
        if job == INSPECT:
            return Outcome("done", type("Facts", (), {"failure": ""}))
        self.asked.append(("measure", name(cell)))
        started = datetime.now(UTC).isoformat()
        return Outcome("done", CellRecord(cell=cell, status="ok", started=started, wall_seconds=1.0))


def name(cell: Cell) -> str:
    return f"{cell.batch_size} {cell.mode}"


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch, processes=2)


def test_the_next_cells_are_compiled_side_by_side_and_then_measured_in_turn(
    start: Callable[..., Run], stage: Stage, watcher: Watcher
):
    stage.ends = lambda cell: "oom" if cell.batch_size == 2 else "done"
    run = start(batch_sizes=[1, 2, 4], modes=["eager", "compile"])
    sweep(run, watcher, launch=stage.run_job)
    assert stage.asked == [
        ("measure", "1 eager"),
        ("compile", "1 compile", "2 compile"),
        ("measure", "1 compile"),
        ("measure", "2 eager"),
        # What went wrong is compiled when its turn has come, by who measures it.
        ("measure", "2 compile"),
        ("measure", "4 eager"),
        ("compile", "4 compile"),
        ("measure", "4 compile"),
    ]
    # The record says how its code came about.
    assert [record.compiled_beforehand for record in run.records()] == [0, 2, 0, 0, 0, 1]
    assert [len(cells) for cells in watcher.beforehand] == [2, 1]


def test_what_times_while_it_compiles_is_not_compiled_among_others(
    start: Callable[..., Run], stage: Stage, watcher: Watcher
):
    sweep(start(modes=["max-autotune", "eager"]), watcher, launch=stage.run_job)
    assert {what for what, *_ in stage.asked} == {"measure"}


@pytest.mark.parametrize(("budget", "seconds"), [(200, [100]), (50, []), (None, [1800])])
def test_compiling_beforehand_leaves_half_of_the_budget(
    start: Callable[..., Run], stage: Stage, watcher: Watcher, budget: float | None, seconds: list[float]
):
    sweep(start(modes=["compile"], budget_seconds=budget), watcher, launch=stage.run_job)
    assert stage.seconds == pytest.approx(seconds, rel=0.1)
    assert [what for what, *_ in stage.asked[-2:]] == ["measure", "measure"]


def test_an_interrupt_while_compiling_leaves_every_cell_skipped(
    start: Callable[..., Run], stage: Stage, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(beforehand, "run_jobs", interrupted)
    run = start(modes=["compile"])
    with pytest.raises(KeyboardInterrupt):
        sweep(run, watcher, launch=stage.run_job)
    assert [(record.status, record.reason) for record in run.records()] == [("skipped", "interrupted")] * 2


def compile_into(report: Report, folder: str, cell: Cell) -> None:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    compile_beforehand(report, cell, 1)


def measure_from(report: Report, folder: str, cell: Cell) -> dict[str, str]:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    bench = Bench.of(cell)
    bench.first_calls()
    return dict(bench.compile_cache)


@pytest.mark.slow
@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
def test_who_measures_finds_what_was_compiled_beforehand(tmp_path: Path):
    fields = {"device": "cpu", "batch_size": 2, "pass": "forward", "dtype": "fp32", "mode": "compile-blocks"}
    fields |= {"pair": Pair.of("vit_ti16", "vit_ti16"), "width": 16, "depth": 2, "impl": "eager"}
    given = str(tmp_path), Cell.model_validate(fields)
    assert run_job(compile_into, *given, timeout=300).kind == "done"
    assert run_job(measure_from, *given, timeout=300) == ("done", {"baseline": "warm", "candidate": "shared"})
