"""What a worker sets and looks at before it measures."""

import pytest
import torch

from flopbench.cells import Cell
from flopbench.pairs import Pair
from flopbench.runner import worker
from flopbench.runner.jobs import Plan


def test_symmetry_is_proven_in_full_precision_whatever_the_cell_s(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def errors(model, images, generators, action) -> dict[str, float]:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return {"flop": 0.0}

    monkeypatch.setattr(worker, "equivariance_errors", errors)
    # As cuDNN has it by default, and a network that somebody imports may.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    cell = Cell.model_validate(
        {
            "pair": Pair.of("vit_ti16.flop"),
            "device": "cpu",
            "batch_size": 1,
            "pass": "forward",
            "dtype": "bf16",
            "mode": "eager",
            "image_size": (32, 32),
        }
    )
    worker.inspect(lambda kind, value: None, cell)
    assert seen == [("highest", False)] * 2


def test_an_engine_s_cell_says_what_executed_it_and_how_it_came_there():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    cell = Cell.model_validate(
        {
            "pair": Pair.of("vit_ti16.flop"),
            "device": "cpu",
            "batch_size": 1,
            "pass": "forward",
            "dtype": "fp32",
            "mode": "onnxruntime",
            "image_size": (32, 32),
            "width": 48,
            "depth": 1,
        }
    )
    phases = []
    facts = worker.inspect(lambda kind, value: None, cell)
    plan = Plan(precision=0.5, seconds=0.2, allowance=60.0, serving=True)
    record = worker.measure(lambda kind, value: phases.append(value), cell, 0, facts, plan)
    assert record.status == "ok"
    # Weights that torch would load are not what an engine loads.
    assert "load" not in phases
    assert record.phases["export"] > 0
    assert record.world == "in the engine's idiom"
    assert record.check is not None
    assert record.check.agreements.keys() == {"baseline", "candidate"}
    assert record.check.agreement == max(record.check.agreements.values()) < 1e-4
    for result in (record.baseline, record.candidate):
        assert result is not None
        assert result.deployed is not None
        assert result.serving is not None
        assert result.serving.load_seconds == result.deployed.load_seconds
        assert result.serving.disk_bytes == result.deployed.disk_bytes
        assert result.serving.first_call_seconds == result.deployed.first_call_seconds
        # Nobody sees what an engine allocates.
        assert result.peak_bytes is None
        assert result.compile_seconds is None
