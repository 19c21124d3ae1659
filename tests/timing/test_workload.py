"""Each pass does what its name says, in each dtype that a CPU has."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._inductor import config as inductor

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.models.factory import create_model
from flopbench.pairs import Pair
from flopbench.structures import tensors
from flopbench.timing.cache import HELD_CYCLES, Flush, flush_for
from flopbench.timing.memory import Peak, held_bytes, peak_memory
from flopbench.timing.workload import Workload, build_model, cell_inputs, make_workload, repeated_blocks
from tests.support.networks import LARGE, LAZY

CPU = torch.device("cpu")

# The invariant head sees the symmetric half alone, so the final norm's other gain learns nothing.
UNSEEN = {"norm.weight_a"}


def cell(**changes) -> Cell:
    fields = {
        "pair": Pair.of("vit_ti16.flop"),
        "device": "cpu",
        "batch_size": 2,
        "pass": "forward",
        "dtype": "fp32",
        "mode": "eager",
        "image_size": (32, 32),
        "num_classes": 10,
    }
    return Cell.model_validate(fields | changes)


def workload(cell: Cell, name: str = "vit_ti16.flop"):
    return make_workload(build_model(name, cell, CPU), cell_inputs(cell, CPU), cell)


def test_forward_takes_no_gradients():
    work = workload(cell())
    assert not work.step(work.prepare()).requires_grad
    assert not work.model.training


def test_backward_leaves_gradients_of_every_parameter_and_does_not_add_them_up():
    work = workload(cell(**{"pass": "backward"}))
    torch.manual_seed(0)
    work.run()
    first = {name: p.grad.clone() for name, p in work.model.named_parameters() if p.grad is not None}
    assert set(first) == {name for name, _ in work.model.named_parameters()} - UNSEEN
    torch.manual_seed(0)
    work.run()
    parameters = dict(work.model.named_parameters())
    for name, gradient in first.items():
        torch.testing.assert_close(parameters[name].grad, gradient)


def test_train_moves_every_parameter():
    work = workload(cell(**{"pass": "train"}))
    before = {name: p.detach().clone() for name, p in work.model.named_parameters()}
    work.run()
    still = {name for name, p in work.model.named_parameters() if torch.equal(before[name], p)}
    assert still == UNSEEN


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "autocast-bf16"])
@pytest.mark.parametrize("pass_", ["forward", "backward", "train"])
def test_every_dtype_runs_every_pass(dtype: str, pass_: str):
    this = cell(dtype=dtype, **{"pass": pass_})
    work = workload(this)
    work.run()
    expected = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype, torch.float32)
    assert {p.dtype for p in work.model.parameters()} == {expected}
    assert work.logits(cell_inputs(this, CPU)).isfinite().all()


def test_both_models_of_a_pair_get_the_same_images():
    (once,), (again,) = (cell_inputs(cell(), CPU).args for _ in range(2))
    assert torch.equal(once, again)
    assert once.std() == pytest.approx(1.0, abs=0.05)


def test_width_and_depth_reach_both_models():
    this = cell(width=32, depth=2)
    for name in ("vit_ti16", "vit_ti16.flop"):
        work = workload(this, name)
        assert len(repeated_blocks(work.model)) == 2
        assert max(p.shape[0] for p in work.model.parameters()) <= 4 * 32
        work.run()


def test_channels_last_reaches_the_images():
    (images,) = cell_inputs(cell(memory_format="channels_last"), CPU).args
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_convnext_convolves_its_features_where_they_lie(memory_format):
    this = cell(pair=Pair.of("convnext_iso_s.flop"), memory_format=memory_format)
    for name in ("convnext_iso_s", "convnext_iso_s.flop"):
        layers = [layer for layer in build_model(name, this, CPU).modules() if hasattr(layer, "contiguous")]
        assert len(layers) == 18
        assert not any(layer.contiguous for layer in layers)


def test_unfused_attention_gives_the_same_logits():
    images = cell_inputs(cell(), CPU)
    fused, unfused = (workload(cell(attention=kind)).logits(images) for kind in ("fused", "unfused"))
    torch.testing.assert_close(fused, unfused, atol=1e-5, rtol=1e-4)


class Detector(torch.nn.Module):
    """Gives more than one tensor, one of them without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3 * 32 * 32, 4)

    def forward(self, images: torch.Tensor) -> dict[str, object]:
        boxes = self.linear(images.flatten(1))
        return {"boxes": boxes, "aux": (boxes.mean(), [boxes.argmax(-1)])}


def test_several_outputs_are_differentiated_and_checked():
    this = cell(**{"pass": "backward"})
    work = make_workload(Detector(), cell_inputs(this, CPU), this)
    work.run()
    assert all(p.grad is not None for p in work.model.parameters())
    assert [tuple(part.shape) for part in tensors(work.logits(cell_inputs(this, CPU)))] == [(2, 4), (), (2,)]


def test_a_training_step_asks_for_logits():
    this = cell(**{"pass": "train"})
    with pytest.raises(
        FlopbenchError, match=r"^a training step needs logits \[B, K\] or \[B, K, H, W\], .* gives a dict"
    ):
        make_workload(Detector(), cell_inputs(this, CPU), this).run()


def test_nothing_to_differentiate_is_said():
    class Whole(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.argmax(-1)

    this = cell(**{"pass": "backward"})
    with pytest.raises(FlopbenchError, match="nothing of the output can be differentiated"):
        make_workload(Whole(), cell_inputs(this, CPU), this).run()


def test_blocks_are_found_and_their_absence_is_told():
    assert len(repeated_blocks(build_model("vit_ti16.hybrid", cell(), CPU))) == 12
    with pytest.raises(RuntimeError, match="no repeated blocks"):
        repeated_blocks(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("pass_", ["forward", "backward", "train"])
def test_peak_memory_is_exact_and_repeatable(pass_: str):
    work = workload(cell(**{"pass": pass_}))
    work.run()
    peaks = {peak_memory(work, "cpu").bytes for _ in range(2)}
    assert len(peaks) == 1
    weights = sum(p.numel() * p.element_size() for p in work.model.parameters())
    copies = {"forward": 1, "backward": 2, "train": 4}[pass_]  # weights, gradients, AdamW's two moments
    assert (peaks.pop() or 0) > copies * weights
    assert held_bytes(work) >= (3 if pass_ == "train" else 1) * weights


def test_peak_memory_of_a_known_allocation():
    class Doubling(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1000))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            big = images.repeat(2, 1, 1, 1)  # twice the images
            return (big * 2).mean(dim=(1, 2, 3))[:, None]  # as much again while `big` lives

    images = cell_inputs(cell(), CPU)
    work = make_workload(Doubling(), images, cell())
    assert peak_memory(work, "cpu").bytes == pytest.approx(4000 + 4 * images.args[0].nbytes, abs=200)


class FakeCuda:
    """The caching allocator's counters, as `torch.cuda` has them.

    A call allocates 500 bytes at its peak; a replayed graph, unless it runs uncaptured, none.
    """

    def __init__(self, *, replays: bool = False) -> None:
        self.current, self.peak, self.allocations = 10_000, 99_000, 7
        self.replays = replays

    def synchronize(self) -> None:
        pass

    def memory_allocated(self) -> int:
        return self.current

    def memory_stats(self) -> dict[str, int]:
        return {"allocation.all.allocated": self.allocations}

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.current

    def max_memory_allocated(self) -> int:
        return self.peak

    def call(self) -> None:
        if not self.replays or inductor.triton.force_cudagraphs_warmup:
            self.peak, self.allocations = max(self.peak, self.current + 500), self.allocations + 3

    def workload(self, *, captured: bool) -> Workload:
        model = torch.nn.Linear(2, 2)
        return Workload(model, lambda: None, lambda _: self.call(), lambda x: x, captured=captured)


@pytest.mark.parametrize(
    ("replays", "captured", "transient", "source"),
    [
        (False, False, 500, "allocator"),
        (True, True, 500, "uncaptured"),
        (False, True, 500, "uncaptured"),  # what cannot be captured runs as it is
        (True, False, None, "allocator"),  # a network with graphs of its own
    ],
)
def test_peak_memory_on_cuda(replays: bool, captured: bool, transient: int | None, source: str):
    cuda = FakeCuda(replays=replays)
    work = cuda.workload(captured=captured)
    expected = None if transient is None else held_bytes(work) + transient
    assert peak_memory(work, "cuda", cuda=cuda) == Peak(expected, source)  # type: ignore[arg-type]
    assert not inductor.triton.force_cudagraphs_warmup


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what inductor imports
@pytest.mark.parametrize("pass_", ["forward", "backward", "train"])
@pytest.mark.parametrize(
    ("device", "mode", "captured"),
    [
        ("cuda", "cuda-graph", True),
        ("cuda", "max-autotune", True),
        ("cuda", "compile", False),
        ("cuda", "eager", False),
        ("cpu", "max-autotune", False),
    ],
)
def test_images_of_cuda_graphs_stay_where_they_are(pass_: str, device: str, mode: str, captured: bool):
    this = cell(device=device, mode=mode, **{"pass": pass_})
    images = cell_inputs(this, CPU)
    work = make_workload(build_model("vit_ti16", this, CPU), images, this)
    assert work.captured is captured
    assert hasattr(images.args[0], "_dynamo_static_input_type") is captured


LAYER = Pair.of("linear_768.flop")


@pytest.mark.parametrize("pass_", ["forward", "backward"])
def test_nothing_of_a_single_layer_is_in_the_cache_of_a_gpu(pass_: str, monkeypatch: pytest.MonkeyPatch):
    log: list[str] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(L2_cache_size=1024))
    monkeypatch.setattr(Flush, "__call__", lambda self: log.append("flush"))
    this = cell(device="cuda", pair=LAYER, **{"pass": pass_})
    model = build_model("linear_768", this, CPU)
    model.register_forward_hook(lambda *_: log.append("forward"))
    work = make_workload(model, cell_inputs(this, CPU), this)
    assert work.flushed_bytes == 4096
    work.step(work.prepare())
    # Right before what is timed: the pass's forward half fills the cache.
    assert log == {"forward": ["flush", "forward"], "backward": ["forward", "flush"]}[pass_]


@pytest.mark.parametrize("changes", [{"device": "cuda"}, {"pair": LAYER}])
def test_networks_and_cpus_keep_their_caches(changes: dict[str, Any]):
    assert flush_for(cell(**changes), CPU) is None


def test_a_flush_reads_more_than_the_cache_holds_and_holds_the_device(monkeypatch):
    held = []
    monkeypatch.setattr("flopbench.timing.cache.hold_device", held.append)
    flush = Flush(1024, CPU)
    version = flush.buffer._version
    flush()
    assert held == [HELD_CYCLES]
    assert flush.buffer.nbytes > 1024
    assert flush.buffer._version == version


@pytest.mark.parametrize("name", ["vit_ti16.flop", "torch.nn:Identity"])
def test_a_pair_may_keep_its_weights(name: str):
    pair = Pair(baseline=name, candidate=name, perturb=False)
    kept = build_model(name, cell(pair=pair), CPU).state_dict()
    torch.manual_seed(0)
    expected = create_model(name, image_size=32, num_classes=10).state_dict()
    torch.testing.assert_close(kept, expected, rtol=0, atol=0)
    perturbed = build_model(name, cell(), CPU).state_dict()
    assert all(not torch.equal(perturbed[key], kept[key]) for key in kept)


def test_lazy_layers_have_shapes_before_their_weights_are_perturbed():
    work = workload(cell(**{"pass": "train", "pair": Pair.of(LAZY, LARGE)}), LAZY)
    work.run()
    assert sum(parameter.numel() for parameter in work.model.parameters()) == 3 * 10 + 10
