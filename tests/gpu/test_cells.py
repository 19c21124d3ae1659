"""What only a GPU shows beside its kernels: that all works there, from the command line to the record.

Fused networks too, for what holds for each kernel need not for all of them one after another.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from flopbench.kernels.dispatch import select
from flopbench.models.factory import perturb
from flopbench.results import Run
from flopbench.runner.process import Report, run_job
from flopbench.timing.clock import CLOCKS
from flopbench.timing.device_state import watch
from flopbench.timing.workload import Workload
from tests.gpu.cases import CUDA, DEVICE
from tests.models.networks import build_shallow

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]

MODES = ("eager", "compile", "cuda-graph") if CUDA else ("eager", "compile")
SIZE = ("--batch-size", "64") if CUDA else ("--batch-size", "2", "--image-size", "32")


def flopbench(*arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flopbench", *map(str, arguments)],
        cwd=cwd,
        # Interpreted, networks take minutes.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cell_is_measured_in_each_mode(tmp_path: Path):
    asked = [word for mode in MODES for word in ("--mode", mode)]
    flopbench(
        *("run", "--suite", "layers", "--pair", "mlp_768.flop", "--device", DEVICE, "--pass", "forward"),
        *("--dtype", "bf16", "--impl", "auto", "--cell-seconds", "0.5", *SIZE, *asked),
        cwd=tmp_path,
    )
    (run,) = (tmp_path / "results").iterdir()
    records = Run.open(run).records()
    assert {record.cell.mode: record.status for record in records} == dict.fromkeys(MODES, "ok")
    for record in records:
        for model in (record.baseline, record.candidate):
            assert model is not None
            assert min(min(block) for block in model.samples) > 0
            # More than the weights in bf16: in between lie the features.
            assert model.peak_bytes is None or model.peak_bytes > 2 * model.parameters
        if CUDA:
            assert record.device_state.get("sm_mhz"), "NVML tells nothing"


def test_the_clock_sees_the_larger_product():
    clock = CLOCKS[DEVICE]()
    seconds = []
    for n in (256, 4096) if CUDA else (16, 512):
        x = torch.randn(n, n, device=DEVICE)
        work = Workload.of(torch.mm, x, x)
        clock.time(work, 3)
        seconds.append(min(clock.time(work, 5)[0]))
    assert seconds[1] > 2 * seconds[0]


def test_the_device_is_known(tmp_path: Path):
    environment = json.loads(flopbench("env", cwd=tmp_path))
    if CUDA:
        assert environment["device"] == "cuda"
        assert environment["device_memory_bytes"] > 2**30
        assert environment["driver"]
    state = watch(DEVICE)
    state.glance()
    assert state.report()


def too_much(report: Report, device: str) -> None:
    torch.empty(2**50, dtype=torch.uint8, device=device)


def little(report: Report, device: str) -> float:
    return torch.ones(4, device=device).sum().item()


def test_memory_that_runs_out_ends_one_job_and_not_the_next():
    assert run_job(too_much, DEVICE, timeout=60).kind == "oom"
    assert run_job(little, DEVICE, timeout=60).value == 4.0


@pytest.mark.parametrize("family", ["vit", "resmlp", "convnext"])
def test_fused_networks_are_the_eager_ones(family: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    def network(impl: Any) -> torch.nn.Module:
        with torch.device(DEVICE):
            model = build_shallow(family)
        select(model, impl)
        return perturb(model)

    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    fused, eager = network("fused"), network("eager")
    for model in (fused, eager):
        model(images).square().sum().backward()
    for (name, one), (_, two) in zip(fused.named_parameters(), eager.named_parameters(), strict=True):
        if two.grad is not None:
            scale = two.grad.abs().max().item()
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=1e-4 * scale, msg=name)
    compiled = torch.compile(fused.eval(), fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), eager.eval()(images), rtol=1e-4, atol=1e-4)
