"""The steps of a measurement, with models whose outputs and times the test decides."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flopbench.cells import Cell
from flopbench.kernels.inductor import missing_compiler
from flopbench.pairs import Pair
from flopbench.structures import tensors
from flopbench.timing import bench as module
from flopbench.timing.bench import Bench
from flopbench.timing.checks import WrongOutputError
from flopbench.timing.clock import CudaClock
from flopbench.timing.device_state import CudaWatch
from flopbench.timing.energy import Power
from flopbench.timing.outputs import relative_error
from flopbench.timing.pacing import PACING
from flopbench.timing.workload import Workload
from tests.timing.test_clock_and_state import FakeCuda, FakeNvml


def bench(baseline: Callable[..., Any], candidate: Callable[..., Any], *inputs: Any, **fields: Any) -> Bench:
    workloads = {"baseline": Workload.of(baseline, *inputs), "candidate": Workload.of(candidate, *inputs)}
    return Bench(workloads, "cpu", **fields)


def cell(candidate: str = "vit_ti16.flop", **changes: Any) -> Cell:
    fields = {"device": "cpu", "batch_size": 2, "pass": "forward", "dtype": "fp32", "mode": "eager"}
    small = {"image_size": (32, 48), "num_classes": 10}
    return Cell.model_validate({"pair": Pair.of(candidate), **fields, **small, **changes})


def test_the_steps_of_a_cell_in_order(monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    pair = Bench.of(cell(), told.append)
    pair.first_calls()
    assert set(pair.first_seconds) == {"baseline", "candidate"}
    checked = pair.check()
    assert checked is not None
    assert checked.agreement is None
    assert checked.in_cell is not None
    assert 0 <= checked.in_cell < 1e-4
    pair.warm_up(0.0)
    assert all((peak.bytes or 0) > 0 for peak in pair.peak_memory().values())
    seen: list[int] = []
    rounds, state, flags, _ = pair.sample(
        seconds=0.0, min_rounds=3, on_round=lambda rounds: seen.append(len(rounds.candidate))
    )
    assert (len(rounds.baseline), rounds.stop, seen) == (3, "time", [1, 2, 3])
    assert "few-rounds" in {flag.kind for flag in flags}
    assert "load_average" in state
    steps = ["build", "warm-up", "check", "warm-up", "memory", "sampling"]
    assert [name for name, _ in groupby(told)] == steps
    assert set(pair.phases) == set(told)


def test_sampling_again_adds_rounds():
    pair = bench(torch.neg, torch.neg, torch.ones(2))
    pair.warm_up(0.0)
    pair.sample(seconds=0.0, min_rounds=4)
    assert len(pair.sample(seconds=0.0, min_rounds=3).rounds.baseline) == 7


def test_each_model_is_called_once_before_anything_else():
    called: list[str] = []
    pair = bench(lambda: called.append("A"), lambda: called.append("B"))
    pair.first_calls()
    assert called == ["A", "B"]


def test_what_a_process_starts_but_once_is_in_no_model_s_first_call(monkeypatch: pytest.MonkeyPatch):
    log: list[str] = []
    pair = Bench.of(cell())
    for role in pair.workloads:
        pair.workloads[role] = Workload.of(lambda role=role: log.append(role))
    monkeypatch.setattr(module, "start_libraries", log.append)
    pair.first_calls()
    assert log == ["cpu", "baseline", "candidate"]


def test_the_first_calls_say_what_ran():
    pair = Bench.of(cell(impl="eager"))
    pair.first_calls()
    assert pair.ran["baseline"]["attention"] == {"torch": "asked for"}
    assert pair.ran["baseline"].keys() <= pair.ran["candidate"].keys()


@pytest.mark.parametrize("wrong", ["baseline", "candidate"])
def test_an_output_that_is_not_finite_is_refused(wrong: str):
    functions = {"baseline": torch.neg, "candidate": torch.neg, wrong: lambda x: {"a": [x, x / 0 * 0]}}
    with pytest.raises(WrongOutputError, match=rf"the {wrong}'s output \(3,\) is not finite$"):
        bench(functions["baseline"], functions["candidate"], torch.zeros(3)).check()


def test_outputs_of_different_sizes_are_refused_and_layouts_are_free():
    x = torch.ones(4)
    assert bench(torch.neg, lambda x: (x[:2], x[2:]), x).check() is None
    with pytest.raises(WrongOutputError, match="outputs of 4 and of 3 numbers: not the same task"):
        bench(torch.neg, lambda x: x[:3], x).check()


def replaced(pair: Bench, role: str, logits: Callable[[Tensor], Any]) -> Bench:
    pair.workloads[role] = Workload.of(logits, *pair.workloads[role].inputs.args)
    return pair


# Neither promises an invariance.
UNLIKE = Pair.of("vit_ti16", "vit_s16")


def found(images: Tensor) -> list[dict[str, Tensor]]:
    """A detector's output: of each image the pixels above a threshold, however many these are."""
    return [{"boxes": image[image > 0.5]} for image in images]


def test_what_detectors_find_may_differ_in_number():
    pair = Bench.of(cell(pair=UNLIKE))
    replaced(pair, "baseline", found)
    replaced(pair, "candidate", lambda images: found(images / 2)).check()
    (flag,) = pair.unchecked
    assert "sizes of the output depend on the inputs" in flag.message


def test_numbers_that_no_image_changes_must_be_as_many():
    pair = Bench.of(cell(pair=UNLIKE))
    with pytest.raises(WrongOutputError, match="outputs of 20 and of 10 numbers: not the same task"):
        replaced(pair, "candidate", lambda images: images.flatten(1)[:, :5]).check()


def test_a_detector_with_our_kernels_may_find_one_more_by_rounding():
    pair = Bench.of(cell(pair=UNLIKE))
    pair.ran = {"baseline": {}, "candidate": {"attention": {"cpp": "asked for"}}}
    later = iter(range(10))
    replaced(pair, "candidate", lambda images: found(images + 1e-3 * next(later))).check()
    assert "sizes of the output depend on the inputs" in pair.unchecked[0].message


def test_a_candidate_that_lost_its_symmetry_is_refused():
    pair = Bench.of(cell())
    weight = torch.randn(3 * 32 * 48, 10)
    with pytest.raises(
        WrongOutputError, match=r"^E\(ViT-Ti/16\) is not invariant under a flop in fp32 eager:"
    ):
        replaced(pair, "candidate", lambda images: images.flatten(1) @ weight).check()


def test_a_cell_says_in_which_dtype_an_output_is_not_finite():
    pair = Bench.of(cell(dtype="bf16"))
    with pytest.raises(WrongOutputError, match=r"^ViT-Ti/16's output \(2, 10\) is not finite in bf16$"):
        replaced(pair, "baseline", lambda images: torch.full((len(images), 10), math.nan)).check()


def test_on_a_gpu_events_time_the_calls(monkeypatch: pytest.MonkeyPatch):
    cuda = FakeCuda()
    monkeypatch.setattr(module, "CLOCKS", {"cuda": lambda: CudaClock(cuda, cuda.now)})
    monkeypatch.setattr(module, "watch", lambda device: CudaWatch(FakeNvml()))
    pair = bench(torch.neg, torch.neg, torch.ones(2))
    pair.device = "cuda"
    pair.first_calls()
    assert cuda.log == ["synchronise"] * 2
    pair.warm_up(0.0)
    assert cuda.now() >= 2 * PACING["cuda"].warm_up
    rounds, state, flags, power = pair.sample(seconds=2.0)
    # Events are a millisecond apart, and the host's dispatch is kept beside them.
    assert np.array(rounds.candidate) == pytest.approx(1e-3)
    assert len(rounds.candidate_host) == len(rounds.candidate)
    assert "unsettled" in {flag.kind for flag in flags}
    # Looked at while work is queued; this card tells no energy.
    assert state["sm_mhz"][1] == 1900
    assert power == {}


def test_energy_that_flushing_caches_took_is_no_model_s(monkeypatch: pytest.MonkeyPatch):
    class Card(CudaWatch):
        def power(self) -> dict[str, Power]:
            return {"baseline": Power(watts=600.0, joules=3.0)}

    monkeypatch.setattr(module, "watch", lambda device: Card(FakeNvml()))
    pair = bench(torch.neg, torch.neg, torch.ones(2))
    pair.warm_up(0.0)
    assert pair.sample(seconds=0.0).power["baseline"].joules == 3
    pair.workloads["candidate"] = replace(pair.workloads["candidate"], flushed_bytes=4096)
    assert pair.sample(seconds=0.0).power == {}


def test_tensors_are_found_whatever_the_structure():
    @dataclass
    class Answer:
        classes: Tensor
        more: dict[str, Any]

    @dataclass(slots=True)
    class Slotted:
        boxes: Tensor

    x = torch.ones(1)
    assert len(tensors({"a": [x, (x, 3)], "b": x, "c": "text"})) == 3
    assert len(tensors(Answer(x, {"boxes": [Slotted(x)], "rest": SimpleNamespace(mask=x)}))) == 3
    assert tensors(None) == []
    circle: list[Any] = [x]
    circle.append(circle)
    assert len(tensors(circle)) == 1


def test_what_no_check_can_see_is_named():
    pair = bench(torch.neg, lambda x: (-x, np.ones(2)), torch.ones(3))
    pair.check()
    (flag,) = pair.unchecked
    assert (flag.kind, flag.message) == (
        "unchecked",
        "the candidate: ndarray in the output cannot be checked",
    )
    pair.warm_up(0.0)
    assert flag in pair.sample(seconds=0.0).flags
    empty = bench(lambda x: x[:0], lambda x: None, torch.ones(3))
    empty.check()
    assert len(empty.unchecked) == 2


def test_a_network_that_writes_into_its_input_gets_no_time():
    pair = replaced(Bench.of(cell()), "baseline", lambda images: images.sub_(0.5).mean((1, 2, 3)))
    with pytest.raises(WrongOutputError, match=r"^ViT-Ti/16 writes into its input.*x = x\.clone\(\)$"):
        pair.check()


@pytest.mark.parametrize("write", [lambda x: x.add_(1), lambda x: x.data.add_(1)])
def test_a_callable_that_writes_into_its_input_is_flagged(write: Callable[[Tensor], Tensor]):
    pair = bench(torch.neg, write, torch.ones(3))
    pair.check()
    assert [flag.message.partition(" into")[0] for flag in pair.unchecked] == ["the candidate writes"]


def disagreeing(cell: Cell, eager: Callable[[], Any], *, otherwise: Callable[[], Any]) -> Bench:
    """A bench whose baseline gives one thing as it is timed and, in the reference run, another."""
    pair = Bench.of(cell)
    pair.ran["baseline"] = {"gelu": {"cpp": "asked for"}}
    calls: list[int] = []

    def network(images: Tensor) -> Any:
        calls.append(1)
        return otherwise() if len(calls) == 1 else eager()

    return replaced(pair, "baseline", network)


def test_a_fused_model_that_differs_from_the_eager_one_is_refused():
    fixed = torch.randn(2, 2, 10, generator=torch.Generator().manual_seed(0))
    pair = disagreeing(cell(impl="eager"), lambda: fixed[0], otherwise=lambda: fixed[1])
    with pytest.raises(WrongOutputError, match=r"^ViT-Ti/16 with our kernels differs from the eager op"):
        pair.check()


def test_what_varies_from_call_to_call_is_named_and_not_accused():
    def draws() -> dict[str, Tensor]:
        return {"random": torch.randn(2, 4), "sure": torch.ones(2, 6)}

    def other() -> dict[str, Tensor]:
        return {"random": torch.zeros(2, 4), "sure": torch.ones(2, 6)}

    pair = disagreeing(cell(), draws, otherwise=other)
    checked = pair.check()
    assert checked is not None
    assert checked.agreement == 0
    assert ["random numbers" in flag.message for flag in pair.unchecked] == [True]

    def wrong() -> dict[str, Tensor]:
        return {"random": torch.zeros(2, 4), "sure": torch.zeros(2, 6)}

    with pytest.raises(WrongOutputError, match="differs from the eager operations"):
        disagreeing(cell(), draws, otherwise=wrong).check()


def test_both_sides_draw_the_same_random_numbers():
    pair = disagreeing(cell(), lambda: torch.randn(2, 10), otherwise=lambda: torch.randn(2, 10))
    state = torch.get_rng_state()
    checked = pair.check()
    assert checked is not None
    assert (checked.agreement, pair.unchecked) == (0, [])
    assert torch.equal(torch.get_rng_state(), state)


def test_whole_numbers_that_differ_are_named():
    def output(label: int) -> Callable[[], Any]:
        return lambda: (torch.ones(2, 9), torch.full((2,), label))

    pair = disagreeing(cell(), output(1), otherwise=output(2))
    pair.check()
    assert [flag.message.partition(" (2,)")[0].partition(": ")[2] for flag in pair.unchecked] == [
        "whole numbers"
    ]


@pytest.mark.parametrize(
    ("got", "wanted", "error"),
    [
        ([1.0, -1.1], [1.0, -1.0], 0.1),
        ([2.2], [2.0], 0.1),  # a single number has no deviation
        ([0.9, 1.0], [1.0, 1.0], 0.1),  # nor has a constant
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 1e-9], [0.0, 0.0], math.inf),
        ([], [], 0.0),
        ([1.0, 2.0], [1.0], math.inf),
        ([math.nan], [math.nan], math.inf),
        ([math.inf], [math.inf], math.inf),
        ([3, 4], [3, 4], 0.0),
        ([True, False], [True, True], 1.0),
        ([1 + 1j], [1 + 1j], 0.0),
    ],
)
def test_the_error_holds_where_its_divisor_is_degenerate(got: list[Any], wanted: list[Any], error: float):
    assert relative_error(torch.tensor(got), torch.tensor(wanted)) == pytest.approx(error, rel=1e-5)


def test_sparse_outputs_are_seen():
    x = torch.eye(3)
    assert relative_error(x.to_sparse(), x.to_sparse()) == 0
    assert bench(torch.neg, lambda x: -x.to_sparse(), x).check() is None


@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what inductor imports
def test_compiled_cells_say_whether_the_cache_held_what_they_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    both = Pair.of("vit_ti16", "vit_ti16")
    found = []
    for _ in range(2):
        torch._dynamo.reset()
        pair = Bench.of(cell(pair=both, mode="compile-blocks", impl="eager", width=16, depth=2))
        pair.first_calls()
        found.append(pair.compile_cache)
    # Blocks alike are compiled once in a process, and taken from the disk by the next.
    assert found == [
        {"baseline": "cold", "candidate": "shared"},
        {"baseline": "warm", "candidate": "shared"},
    ]


@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what inductor imports
@pytest.mark.parametrize("candidate", ["vit_ti16", "vit_ti16.hybrid"])
def test_what_was_compiled_for_the_baseline_counts_for_a_candidate_alike(candidate: str):
    """The compiler traces no block twice, so nothing is seen of the candidate's plain blocks."""
    both = {"baseline": "vit_ti16", "candidate": candidate}
    pair = Bench.of(cell(pair=both, mode="compile-blocks", impl="eager", width=16, depth=2))
    torch._dynamo.reset()
    pair.first_calls()
    assert pair.ran["baseline"].keys() >= {"attention", "gelu", "layer_norm", "linear"}
    assert pair.ran["baseline"].keys() <= pair.ran["candidate"].keys()
