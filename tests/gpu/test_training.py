"""What only a GPU shows of a training: its precisions, its clock, its memory and energy, and NCCL."""

import json
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import flopbench
from flopbench.results.trainings import NetworkInfo
from flopbench.training.loop import Trainer
from flopbench.training.weights import save_weights
from flopbench.training.world import World
from tests.gpu.cases import BACKEND, CUDA, DEVICE
from tests.support.torchrun import torchrun
from tests.support.training import CLASSES, Noise, recipe

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(
        not (find_spec("timm") and find_spec("torchvision")), reason="training needs timm and torchvision"
    ),
]

WORLD = World(torch.device(DEVICE))
# Some milliseconds per step on a GPU.
SIZE, NETWORK = (
    (64, dict[str, Any](patch_size=4, width=384, depth=6, heads=6))
    if CUDA
    else (8, dict[str, Any](patch_size=4, width=16, depth=2, heads=2))
)


def trainer(
    name: str = "vit_ti16.flop", checkpointing: bool = False, drop_path: float = 0.1, **fields: Any
) -> Trainer:
    torch.manual_seed(0)
    model = flopbench.create_model(name, SIZE, CLASSES, drop_path=drop_path, **NETWORK).to(DEVICE)
    settings = {"image_size": (SIZE, SIZE), "batch_size": 24, "epochs": 200, **fields}
    return Trainer(recipe(**settings), model, Noise(WORLD, SIZE), WORLD, seed=0, checkpointing=checkpointing)


@pytest.mark.parametrize("dtype", ["fp32", "tf32", "autocast-bf16", "autocast-fp16"])
def test_it_learns_in_every_precision(dtype: str):
    training = trainer(dtype=dtype, mix={})
    assert torch.get_float32_matmul_precision() == ("high" if dtype == "tf32" else "highest")
    before, _ = training.evaluate()
    training.run(30)
    after, averaged = training.evaluate()
    assert after.plain.nll < before.plain.nll - 0.3
    assert averaged is not None
    # Of E(X) in any arithmetic that treats both images alike.
    assert after.flip_consistency > 0.85
    assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}
    assert training.scaler.is_enabled() == (dtype == "autocast-fp16")
    if training.scaler.is_enabled():
        # A scale at which no gradient is finite is halved until they are, by steps that change nothing.
        assert training.scaler.get_scale() >= 1


@pytest.mark.parametrize("mode", ["compile-blocks", "compile"])
def test_compiled_it_learns_what_it_does_uncompiled(mode: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=BACKEND))
    # Inductor draws random numbers in its own way, which drops other paths.
    compiled, eager = trainer(mode=mode, drop_path=0.0), trainer(drop_path=0.0)
    assert compiled.warm_up() > 0
    losses = [training.run(5).loss for training in (compiled, eager)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_what_is_trained_again_goes_on_where_it_was(tmp_path: Path):
    through, first, second = trainer(), trainer(), trainer()
    through.run(8)
    first.run(4)
    path = tmp_path / "checkpoint.pt"
    torch.save(first.state_dict(), path)
    second.load_state_dict(torch.load(path, weights_only=True))
    second.run(8)
    # Sums on a GPU come in any order.
    for one, other in zip(through.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


@pytest.mark.skipif(not CUDA, reason="a CPU has no queue")
def test_the_clock_waits_for_the_device():
    training = trainer()
    training.warm_up()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    segment = training.run(100)
    end.record()
    end.synchronize()
    assert segment.seconds == pytest.approx(begin.elapsed_time(end) / 1e3, rel=0.05)


@pytest.mark.skipif(not CUDA, reason="a CPU's memory is the process's")
def test_recomputation_takes_less_memory():
    peaks = []
    for checkpointing in (False, True):
        training = trainer(checkpointing=checkpointing)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        training.run(2)
        peaks.append(torch.cuda.max_memory_allocated())
        del training
    assert peaks[1] < 0.8 * peaks[0]


@pytest.mark.skipif(not CUDA, reason="a CPU may tell no energy")
def test_the_energy_of_a_segment_is_that_of_a_gpu_at_work():
    training = trainer()
    training.warm_up()
    segment = training.run(400)
    assert segment.joules is not None
    assert 30 < segment.joules / segment.seconds < 2000


def test_one_process_of_torchrun_trains_as_one_by_itself(tmp_path: Path):
    done = torchrun("train", tmp_path, DEVICE, processes=1)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for way in ("replicated", "sharded"):
        assert max(found[way]["difference"].values()) < 1e-3, way
        assert max(found[way]["resumed"].values()) < 1e-3, way
    assert found["skipped"]


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[[str], float]:
    """Images per second of a network in bf16, on the digits."""
    if find_spec("sklearn") is None:
        pytest.skip("the digits are scikit-learn's, and this machine lacks it")

    def measure(name: str) -> float:
        model = flopbench.create_model(name, SIZE, 10, **NETWORK)
        path = tmp_path / f"{name}.safetensors"
        about = NetworkInfo(
            name=name,
            options=NETWORK,
            image_size=(SIZE, SIZE),
            num_classes=10,
            mean=(0.3,) * 3,
            std=(0.4,) * 3,
        )
        save_weights(path, model.state_dict(), about)
        found = flopbench.evaluate(
            name, path, data="digits", device=DEVICE, dtype="autocast-bf16", cell_seconds=0.5, results=None
        )
        (record,) = found.records
        assert record.accuracy.images > 300
        assert record.throughput is not None
        return record.throughput.estimate

    return measure


def test_both_networks_are_evaluated_and_timed(evaluated: Callable[[str], float]):
    fast, plain = evaluated("vit_ti16.flop"), evaluated("vit_ti16")
    assert min(fast, plain) > 0
