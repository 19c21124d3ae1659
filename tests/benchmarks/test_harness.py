"""What the harness itself costs, beside the models that it measures.

    pytest tests/benchmarks/test_harness.py --benchmark-enable

The share of a run's wall time outside warm-up, compilation and timed calls is below 15 %. That share, and
the memory that the processes without a model have to themselves, are kept with the benchmark's record
(`extra_info`). Where benchmarks are not enabled, images are small, the sweep is short, and its time is not
looked at.
"""

import os
import time
from pathlib import Path

from flopbench.results import Run
from flopbench.runner.begin import new_run
from flopbench.runner.process import Report, run_job
from flopbench.runner.sweep import probe_environment, sweep
from flopbench.suites import load_suite, override
from tests.runner.conftest import Watcher

# What a cell is measured for; the rest is the harness's own: building, checking, memory, starting.
MEASURING = {"warm-up", "compile", "sampling"}


def harness_share(run: Run, wall_seconds: float) -> float:
    measuring = sum(
        seconds for record in run.records() for phase, seconds in record.phases.items() if phase in MEASURING
    )
    return 1 - measuring / wall_seconds


def fork_server_bytes(report: Report) -> int:
    """A job: memory that its fork server shares with nobody while a worker runs.

    The rest (torch, as it was imported) is what the worker would need anyway.
    """
    rows = Path(f"/proc/{os.getppid()}/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("Private_Dirty:"))


def test_a_sweep_of_real_cells(benchmark, tmp_path: Path):
    size = {"cell_seconds": 20.0} if benchmark.enabled else {"cell_seconds": 0.05, "image_sizes": (32,)}
    profile = override(
        load_suite("vit").profile("cpu", "quick"),
        modes=("eager",),
        passes=("forward", "backward"),
        batch_sizes=(1, 4),
        precision=1e-4,
        **size,
    ).model_copy(update={"budget_seconds": None})
    suite = load_suite("vit")
    environment = probe_environment("cpu")
    seconds: list[float] = []

    def measure() -> Run:
        run = new_run(suite, profile, environment, tmp_path, variant="quick", command="benchmark")
        start = time.monotonic()
        sweep(run, Watcher())
        seconds.append(time.monotonic() - start)
        return run

    run = benchmark.pedantic(measure, rounds=1)
    assert [record.status for record in run.records()] == ["ok"] * 4
    share = harness_share(run, seconds[-1])
    benchmark.extra_info["harness_share"] = round(share, 4)
    # Both grow as a machine slows down, so the share hardly depends on it.
    assert 0 < share < (0.15 if benchmark.enabled else 1)
    memory = run_job(fork_server_bytes, timeout=60)
    benchmark.extra_info["fork_server_bytes"] = memory.value
    assert memory.value < 300e6
