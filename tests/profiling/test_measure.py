"""Real profiles of tiny networks: whether the figures hang together, never how long anything takes."""

import json
import os
from typing import Any

import pytest
import torch

from flopbench.cells import Cell
from flopbench.pairs import Pair
from flopbench.profiling import measure
from flopbench.profiling.measure import ProfileJob, profile_pair
from flopbench.results import Peaks
from flopbench.timing import checks
from flopbench.timing.checks import WrongOutputError
from flopbench.timing.clock import CpuClock
from flopbench.timing.workload import Workload

PEAKS = Peaks(flops_per_second={"fp32": 1e11}, copy_bytes_per_second=1e10, launch_seconds=1e-6)


def cell(pass_: str, **changes: Any) -> Cell:
    return Cell.model_validate(
        {
            "pair": Pair.of("vit_ti16.flop"),
            "device": "cpu",
            "batch_size": 1,
            "pass": pass_,
            "dtype": "fp32",
            "mode": "eager",
            "image_size": (32, 32),
            "num_classes": 10,
            **changes,
        }
    )


@pytest.fixture(autouse=True)
def _few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CALLS", {"cpu": (2, 2)})


def test_a_forward_profile_has_groups_parts_bounds_and_files(tmp_path):
    phases: list[Any] = []
    job = ProfileJob(cell("forward"), 0.1, PEAKS, tmp_path / "t.json", tmp_path / "s.txt")
    record = profile_pair(lambda kind, value: phases.append(value), job)
    for model in (record.baseline, record.candidate):
        assert model.groups["matrix products"] > 0
        assert model.groups["normalisation"] > 0
        assert sum(model.groups.values()) == pytest.approx(sum(o.seconds for o in model.operators))
        # Hooks and Python are in no part, and every operator is in one.
        assert sum(model.parts.values()) == pytest.approx(sum(model.groups.values()))
        assert {"blocks.*.attn", "blocks.*.mlp", "patch_embed", "head"} <= set(model.parts)
        assert model.kernels
        assert model.busy_seconds is None
        assert model.bound is not None
        assert model.bound.arithmetic <= model.bound.fused <= model.bound.unfused
        products = [o.calls for o in model.operators if o.name == "aten::addmm"]
        assert products == [pytest.approx(round(products[0]))]
    assert record.baseline.flops
    assert record.candidate.flops
    assert 1.5 < record.baseline.flops / record.candidate.flops < 2
    assert record.speedup is not None
    assert "profile the candidate" in phases
    assert json.loads((tmp_path / "t-baseline.json").read_text())["traceEvents"]
    line = (tmp_path / "s-candidate.txt").read_text().splitlines()[0]
    assert line.rpartition(" ")[2].isdigit()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "s-baseline.txt",
        "s-candidate.txt",
        "t-baseline.json",
        "t-candidate.json",
    ]


def test_pixels_are_profiled_beside_what_is_averaged():
    asked = cell("forward", pair=Pair.of("vit_ti16.tta"), task="segmentation", decoder="conv", depth=2)
    record = profile_pair(lambda kind, value: None, ProfileJob(asked, 0.1, PEAKS))
    for model in (record.baseline, record.candidate):
        assert {"blocks.*.attn", "head.levels.*.dwconv", "head.levels.*.norm", "head"} <= set(model.parts)
        assert not [part for part in model.parts if part.startswith("network.")]
        assert model.bound
        assert set(model.bound.parts) <= set(model.parts)
        assert not model.uncounted_operators
        groups = {operator.name: operator.group for operator in model.operators}
        assert groups["aten::upsample_bilinear2d"] == "elementwise"
    assert record.baseline.flops
    assert record.candidate.flops == 2 * record.baseline.flops


@pytest.mark.slow
def test_gradients_are_attributed_to_layers():
    record = profile_pair(lambda kind, value: None, ProfileJob(cell("backward"), 0.1, PEAKS))
    for model in (record.baseline, record.candidate):
        named = sum(seconds for part, seconds in model.parts.items() if part.startswith("blocks.*"))
        assert named > 0.5 * sum(model.parts.values())
        # Forward operators run outside the timed step.
        assert all(o.name != "aten::native_layer_norm" for o in model.operators)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize(("mode", "kept_open"), [("eager", False), ("cuda-graph", True)])
def test_a_profile_without_kernels_is_none_and_graphs_keep_cupti_open(
    mode: str, kept_open: bool, monkeypatch: pytest.MonkeyPatch
):
    for name in ("TEARDOWN_CUPTI", "DISABLE_CUPTI_LAZY_REINIT"):
        monkeypatch.setenv(name, "as it was")
    asked = cell("forward", device="cuda", mode=mode)
    workload = Workload.of(torch.neg, torch.ones(2))
    with pytest.raises(RuntimeError, match="saw no kernel: CUPTI is missing"):
        measure._profile(workload, CpuClock(), asked, 2, ProfileJob(asked, 0.1), "baseline")
    assert (os.environ["TEARDOWN_CUPTI"] == "0") == kept_open
    assert (os.environ["DISABLE_CUPTI_LAZY_REINIT"] == "1") == kept_open


def test_a_pair_whose_outputs_are_wrong_is_not_profiled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "equivariance_errors", lambda *_: {"flop": 0.5})
    phases: list[Any] = []
    with pytest.raises(WrongOutputError, match="not invariant under a flop in fp32 eager: relative error 5"):
        profile_pair(lambda kind, value: phases.append(value), ProfileJob(cell("forward"), 0.1, PEAKS))
    assert phases[-1] == "check"
