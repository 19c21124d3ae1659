"""A cell on a simulated GPU, from the first call of its models to the report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flopbench.cells import Cell
from flopbench.inputs import Inputs
from flopbench.pairs import Pair
from flopbench.report.result import Result
from flopbench.results import POWER_LIMIT, ModelResult
from flopbench.results.percentiles import samples_needed
from flopbench.runner import worker
from flopbench.runner.jobs import PairFacts, Plan
from flopbench.timing import bench, checks
from flopbench.timing.bench import ROLES, Bench
from flopbench.timing.clock import CudaClock
from flopbench.timing.device_state import CudaWatch
from flopbench.timing.memory import peak_memory
from flopbench.timing.serving import Stored
from flopbench.timing.workload import Workload
from tests.support.gpu import SimulatedGpu
from tests.support.runs import H200, make_run
from tests.timing.test_clock_and_state import FakeNvml
from tests.timing.test_workload import FakeCuda

SECONDS = {"baseline": 8e-3, "candidate": 5e-3}
WATTS = {"baseline": 950.0, "candidate": 720.0}
CAP = 700.0
CELL = {"device": "cuda", "batch_size": 64, "pass": "forward", "dtype": "bf16", "mode": "cuda-graph"}


class Card(FakeNvml):
    """Tells the energy of a simulated GPU."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> float:  # noqa: N802
        return 1e3 * self.gpu.joules()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimulatedGpu:
    """A GPU in the place of the real one, on which both models of a cell run as a CUDA graph."""
    gpu, memory = SimulatedGpu(CAP), FakeCuda(replays=True)
    logits = torch.randn(64, 10)

    def workload(role: str) -> Workload:
        simulated = gpu.workload(SECONDS[role], WATTS[role])

        def step(prepared: Any) -> None:
            memory.call()
            simulated.step(prepared)

        inputs = Inputs(torch.randn(64, 3, 4, 4))
        return replace(simulated, step=step, logits=lambda _: [logits.clone()], inputs=inputs, captured=True)

    def of(cell: Cell, on_phase: Any) -> Bench:
        return Bench({role: workload(role) for role in ROLES}, cell.device, cell, on_phase)

    seeded = checks.seeded
    monkeypatch.setattr(Bench, "of", of)
    monkeypatch.setattr(worker, "require_compiler", lambda cell: None)
    monkeypatch.setattr(worker, "stored", lambda cell: dict.fromkeys(ROLES, Stored(2**20, (0.3, 0.1, 0.2))))
    monkeypatch.setattr(bench, "start_libraries", lambda device: None)
    monkeypatch.setattr(bench, "start_compiler", lambda device, gradients: None)
    monkeypatch.setattr(checks, "seeded", lambda device, seed: seeded("cpu", seed))
    monkeypatch.setattr(bench, "peak_memory", lambda work, device: peak_memory(work, device, cuda=memory))
    monkeypatch.setattr(bench, "CLOCKS", {"cuda": lambda: CudaClock(gpu, gpu.now, gpu.sleep)})
    monkeypatch.setattr(bench, "watch", lambda device: CudaWatch(Card(gpu), now=gpu.now))
    return gpu


def test_a_cell_gets_its_record_and_its_report(gpu: SimulatedGpu, tmp_path: Path):
    cell = Cell.model_validate({"pair": Pair.of("vit_ti16.flop"), **CELL})
    known = {
        role: ModelResult(name=getattr(cell.pair, role), label=label, parameters=10, macs=macs)
        for role, label, macs in zip(ROLES, cell.labels, (2000, 1000), strict=True)
    }
    told: list[str] = []
    record = worker.measure(
        lambda kind, value: told.append(kind),
        cell,
        0,
        PairFacts(baseline=known["baseline"], candidate=known["candidate"], tolerance=1e-3),
        Plan(precision=0.01, seconds=20.0, allowance=20.0, serving=True),
    )
    assert (record.status, record.stop, record.flags) == ("ok", "precision", ())
    assert set(told) == {"phase", "rounds"}
    assert record.device_state["throttle_reasons"] == [POWER_LIMIT]

    seconds = {role: SECONDS[role] / gpu.speed(WATTS[role]) for role in ROLES}
    assert record.speedup is not None
    assert record.speedup.estimate == pytest.approx(seconds["baseline"] / seconds["candidate"], rel=0.01)
    for role in ROLES:
        model = getattr(record, role)
        assert model.watts == pytest.approx(CAP, rel=0.03)
        assert model.joules == pytest.approx(CAP * seconds[role], rel=0.05)
        assert (model.peak_bytes, model.peak_source) == (500, "uncaptured")
        assert len(model.host_samples) == len(model.samples)
        assert (model.serving.load_seconds, model.serving.disk_bytes) == (0.2, 2**20)
        assert len(model.serving.latencies) >= samples_needed(99)
        # A call that is waited for takes as long as its work at least.
        assert model.serving.latency(50).low >= SECONDS[role]

    axes = {"pairs": (cell.pair.id,), "batch_sizes": (64,), "passes": ("forward",), "modes": (cell.mode,)}
    run = make_run(tmp_path / "run", device=H200, statuses={"*": "skipped"}, **axes)
    run.append(record)
    assert run.records() == [record]
    text = Result([run]).report(tmp_path / "reports").markdown.read_text(encoding="utf-8")
    for words in ("images/s/W", "(uncaptured)", "In 1 of 1 measured cells the GPU ran at its power limit"):
        assert words in text
    assert "What to take with care" not in text
