"""Serving figures: what is timed in a single call, and what lies between a file and a network."""

import gc
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import nn

from flopbench.cells import Cell
from flopbench.models import foreign
from flopbench.pairs import Pair
from flopbench.results.percentiles import samples_needed
from flopbench.symmetries import fold
from flopbench.timing.clock import CudaClock
from flopbench.timing.sampling import ROLES
from flopbench.timing.serving import LOADS, single_calls, stored
from flopbench.timing.workload import Workload, build_model
from tests.support.networks import LAZY, SMALL


class Gpu:
    """Runs what is queued when somebody waits for it; a call takes it so many seconds, its dispatch one."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.time, self.queued, self.seconds = 0.0, 0.0, seconds
        self.log: list[tuple[str, bool]] = []

    def synchronize(self) -> None:
        self.time, self.queued = self.time + self.queued, 0.0

    def now(self) -> float:
        return self.time

    def step(self, role: str) -> None:
        self.log.append((role, gc.isenabled()))
        self.time += 1.0
        self.queued += self.seconds[role]

    def prepare(self) -> None:
        self.queued += 100.0

    def workload(self, role: str) -> Workload:
        return Workload(nn.Identity(), self.prepare, lambda _: self.step(role), lambda x: x)


def served(gpu: Gpu, seconds: float) -> dict[str, list[float]]:
    workloads = {role: gpu.workload(role) for role in ROLES}
    pace = {role: 101 + gpu.seconds[role] for role in ROLES}
    return single_calls(CudaClock(gpu, gpu.now), workloads, pace, seconds)


def test_on_a_gpu_a_latency_is_dispatch_and_work_of_one_call_alone():
    gpu = Gpu({"baseline": 4.0, "candidate": 2.0})
    found = served(gpu, seconds=1e9)
    assert set(found["baseline"]) == {5.0}
    assert set(found["candidate"]) == {3.0}


def test_both_models_take_turns_and_what_follows_the_other_is_not_timed():
    gpu = Gpu({"baseline": 4.0, "candidate": 2.0})
    found = served(gpu, seconds=0.0)
    assert {role: len(own) for role, own in found.items()} == {"baseline": 2, "candidate": 2}
    blocks = [(role, [enabled for _, enabled in own]) for role, own in groupby(gpu.log, lambda call: call[0])]
    # A call that is not timed may be interrupted by the collector, a timed one never.
    assert blocks == [
        ("baseline", [True, False]),
        ("candidate", [True, False, False]),
        ("baseline", [True, False]),
    ]


def test_there_are_as_many_calls_as_the_highest_percentile_needs():
    gpu = Gpu({"baseline": 0.0, "candidate": 0.0})
    found = served(gpu, seconds=1e9)
    for own in found.values():
        assert samples_needed(99) <= len(own) < 1.2 * samples_needed(99)
    assert len(list(groupby(gpu.log, lambda call: call[0]))) > 10


def test_calls_end_with_the_time_given():
    gpu = Gpu({"baseline": 4.0, "candidate": 2.0})
    found = served(gpu, seconds=10_000.0)
    assert 5000 < gpu.time <= 10_000
    assert len(found["baseline"]) == len(found["candidate"]) < samples_needed(99)


# Its layers compute the kernels that they work with.
FOLDED = Pair.of("convnext_iso_s.flop")


def cell(pair: Pair, **changes: Any) -> Cell:
    fields = {"device": "cpu", "batch_size": 1, "pass": "forward", "dtype": "fp32", "mode": "eager"}
    small = {"image_size": (32, 32), "num_classes": 10}
    return Cell.model_validate({"pair": pair, **fields, **small, **changes})


@pytest.mark.parametrize("name", ["vit_ti16", "resmlp_t12", "convnext_iso_s"])
def test_half_the_parameters_are_half_the_file(name: str):
    one = cell(Pair.of(f"{name}.flop"), width=192, depth=2)
    found = stored(one)
    for role in ROLES:
        assert found[role].problem == ""
        assert len(found[role].loads) == LOADS
        assert (found[role].load_seconds or 0) > 0
    sizes = [found[role].disk_bytes or 0 for role in ROLES]
    parameters = [
        sum(p.numel() for p in build_model(n, one, torch.device("cpu")).parameters())
        for n in (one.pair.baseline, one.pair.candidate)
    ]
    # Names and places of the tensors take the rest.
    for size, count in zip(sizes, parameters, strict=True):
        assert 4 * count < size < 4 * count + 40_000
    assert sizes[1] < 0.6 * sizes[0]


def test_a_file_holds_the_weights_in_the_dtype_of_the_cell():
    pair = Pair.of("vit_ti16.flop")
    whole, half = stored(cell(pair, depth=2)), stored(cell(pair, depth=2, dtype="bf16"))
    assert (half["baseline"].disk_bytes or 0) < 0.6 * (whole["baseline"].disk_bytes or 0)


def test_networks_whose_weights_come_late_are_loaded_too():
    found = stored(cell(Pair(baseline=LAZY, candidate=SMALL, perturb=False)))
    for role in ROLES:
        assert found[role].problem == ""
        assert (found[role].load_seconds or 0) > 0


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = self.other = nn.Linear(100, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.one(x))


class Stubborn(nn.Linear):
    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("no, thanks")


@pytest.fixture
def given() -> Iterator[Any]:
    def put(baseline: Any, candidate: Any) -> Pair:
        foreign.put({"a": baseline, "b": candidate})
        return Pair(baseline="python:a", candidate="python:b", perturb=False)

    yield put
    foreign.put({})


def test_objects_given_from_python_stay_as_they_are(given: Any):
    pair = given(Tied(), build_model(FOLDED.candidate, cell(FOLDED, width=64, depth=1), torch.device("cpu")))
    objects = [foreign.load(name) for name in (pair.baseline, pair.candidate)]
    before = [{key: value.clone() for key, value in one.state_dict().items()} for one in objects]
    found = stored(cell(pair))
    # What is shared is in the file once.
    assert 40_000 < (found["baseline"].disk_bytes or 0) < 50_000
    for role, one, state in zip(ROLES, objects, before, strict=True):
        assert (found[role].load_seconds or 0) > 0
        assert one.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


def test_what_has_no_weights_or_cannot_be_loaded_says_so(given: Any):
    found = stored(cell(given(torch.neg, Stubborn(10, 10))))
    assert found["baseline"] == (None, (), "")
    assert (found["candidate"].disk_bytes or 0) > 400
    assert found["candidate"].load_seconds is None
    assert found["candidate"].problem.startswith("cannot be loaded: ValueError: no, thanks")


def test_what_is_loaded_is_ready_for_inference(monkeypatch: pytest.MonkeyPatch):
    ready: list[nn.Module] = []

    def folded(model: nn.Module) -> None:
        fold(model)
        ready.append(model)

    monkeypatch.setattr("flopbench.timing.serving.fold", folded)
    one = cell(FOLDED, width=64, depth=1)
    stored(one)
    images = torch.randn(1, 3, 32, 32)
    for loaded, (seed, name) in zip(ready, enumerate((one.pair.baseline, one.pair.candidate)), strict=False):
        wanted = build_model(name, one, torch.device("cpu"), seed).eval()
        with torch.no_grad():
            torch.testing.assert_close(loaded(images), wanted(images))
