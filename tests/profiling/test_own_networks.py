"""Profiles of networks that are the user's: any inputs, a loss of their own, and what cannot be counted."""

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.models import foreign
from flopbench.pairs import Pair
from flopbench.profiling import measure
from flopbench.profiling.explain import explain, speed_ups
from flopbench.profiling.measure import ProfileJob, profile_pair
from flopbench.profiling.page import write_profile
from flopbench.profiling.predict import predict
from flopbench.profiling.roofline import Work
from flopbench.profiling.tables import all_tables
from flopbench.results import Peaks, ProfileRecord
from tests.profiling.test_explain import profiled

PEAKS = Peaks(flops_per_second={"fp32": 1e11}, copy_bytes_per_second=1e10, launch_seconds=1e-6)


class Tokens(nn.Module):
    """Token ids and a mask in, a dict with a loss out."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(11, width), nn.Linear(width, 8)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        features = self.mix(self.embed(tokens))
        if mask is not None:
            features = features * mask[..., None]
        return {"features": features, "loss": features.square().mean()}


class Choosy(nn.Module):
    """Where it goes depends on values, which the meta device lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.abs().sum() > 0 else x


class Spectral(nn.Module):
    """With an operator that no counter knows."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).abs()


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("nothing")


def tokens(batch_size: int) -> dict[str, Tensor]:
    return {"tokens": torch.randint(11, (batch_size, 5)), "mask": torch.rand(batch_size, 5) > 0.2}


def numbers(batch_size: int) -> Tensor:
    return torch.rand(batch_size, 5)


def cell(baseline: str, candidate: str, inputs: str, pass_: str = "forward", **pair: Any) -> Cell:
    here = f"{__name__}:{inputs}"
    stated = Pair(baseline=baseline, candidate=candidate, inputs=here, **pair)
    return Cell.model_validate(
        {"pair": stated, "device": "cpu", "batch_size": 3, "pass": pass_, "dtype": "fp32", "mode": "eager"}
    )


def own(name: str) -> str:
    return f"{__name__}:{name}"


@pytest.fixture(autouse=True)
def _few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CALLS", {"cpu": (2, 2)})


def profile(asked: Cell) -> ProfileRecord:
    return profile_pair(lambda kind, value: None, ProfileJob(asked, 0.05, PEAKS))


def test_keyword_inputs_are_what_is_counted():
    work = Work(own("Tokens"), cell(own("Tokens"), own("Tokens"), "tokens"))
    assert work.macs == 3 * 5 * 8 * 8
    assert work.bound(PEAKS).unfused > 0


def test_where_values_decide_it_is_counted_on_the_cpu():
    assert Work(own("Choosy"), cell(own("Choosy"), own("Choosy"), "numbers")).macs == 3 * 5 * 5


def test_a_loss_of_ones_own_is_what_is_counted_backwards():
    parts = [
        Work(own("Tokens"), cell(own("Tokens"), own("Tokens"), "tokens", "train", loss=loss)).operators
        for loss in (None, "loss")
    ]
    # Without it the features have gradients of their own, which are added to those of the loss.
    assert parts[1] < parts[0]


def test_what_cannot_be_counted_is_one_line():
    with pytest.raises(FlopbenchError, match=r"cannot count .*:Failing: KeyError: 'nothing'"):
        Work(own("Failing"), cell(own("Failing"), own("Failing"), "numbers"))


def test_objects_are_profiled_on_their_own_inputs_and_their_own_loss():
    foreign.put({"big": Tokens(16), "small": Tokens()})
    record = profile(cell("python:big", "python:small", "tokens", "train", loss="loss", perturb=False))
    for model in (record.baseline, record.candidate):
        assert {"embed", "mix", "(optimiser)"} <= set(model.parts)
        assert model.bound is not None
    words = " ".join(explain(record))
    assert (record.baseline.label, record.candidate.label) == ("big", "small")
    assert "The MACs of small promise 2.00× over big." in words


def test_a_function_is_profiled():
    foreign.put({"square": lambda x: x @ x.mT, "same": lambda x: x @ x.mT + 0})
    record = profile(cell("python:square", "python:same", "numbers", perturb=False))
    assert record.candidate.groups["matrix products"] > 0
    assert speed_ups(record)


def test_a_network_that_cannot_be_counted_has_its_time_by_operator(tmp_path, monkeypatch):
    def count(name: str, asked: Cell) -> Work:
        if name == "python:hidden":
            raise FlopbenchError("cannot count python:hidden: RuntimeError: not under a mode")
        return Work(name, asked)

    monkeypatch.setattr(measure, "Work", count)
    foreign.put({"hidden": Choosy(), "seen": Choosy()})
    record = profile(cell("python:seen", "python:hidden", "numbers"))
    assert record.candidate.bound is None
    assert record.candidate.groups["matrix products"] > 0
    assert record.baseline.bound is not None
    words = " ".join(explain(record))
    assert (
        "hidden could not be counted and has no least times: cannot count python:hidden: RuntimeError"
        in words
    )
    assert "promise" not in words
    page = write_profile(record, tmp_path).read_text(encoding="utf-8")
    assert "hidden could not be counted" in page
    assert "operators (own time)" in page


def test_networks_without_products_promise_nothing_and_have_bounds():
    foreign.put({"doubled": lambda x: x * 2, "halved": lambda x: x / 2})
    asked = cell("python:doubled", "python:halved", "numbers", perturb=False)
    record = profile(asked)
    ups = speed_ups(record)
    assert ups is not None
    assert ups.promised is None
    assert ups.allowed_fused > 0
    words = " ".join(explain(record))
    assert "promise 1" not in words
    assert "halved has no matrix product or convolution, so no MACs to promise anything." in words
    assert predict(asked, PEAKS).promised is None
    console = Console(file=io.StringIO(), record=True, width=120)
    for table in all_tables(record):
        console.print(table)
    assert "allowed, each layer fused" in console.export_text()


def test_what_was_left_out_is_named_and_makes_lower_bounds_of_the_rest(tmp_path):
    work = Work(own("Spectral"), cell(own("Spectral"), own("Spectral"), "numbers"))
    assert list(work.uncounted) == ["_fft_r2c"]
    record = profiled()
    partly = record.candidate.model_copy(update={"uncounted_operators": work.uncounted})
    marked = record.model_copy(update={"candidate": partly})
    words = " ".join(explain(marked))
    assert "promise ≈2.00× over X" in words
    assert "leave out _fft_r2c (1): its least times and rates are lower bounds" in words
    assert "≈" not in " ".join(explain(record))
    assert "operators left out" in write_profile(marked, tmp_path).read_text(encoding="utf-8")


def test_of_two_networks_that_are_no_twins_nothing_is_said_of_halves():
    record = profiled(products=6e-3, elementwise=2e-3)
    twins = " ".join(explain(record))
    pair = Pair(baseline="python:X", candidate="python:E(X)")
    own_pair = record.model_copy(update={"cell": record.cell.model_copy(update={"pair": pair})})
    words = " ".join(explain(own_pair))
    assert "come from elementwise work (" in words
    for of_twins in ("when they are smaller", "as many elements as before", "smaller products"):
        assert of_twins in twins
        assert of_twins not in words
