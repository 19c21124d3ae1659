import math
import sys
from functools import cache

import pytest
import torch
from torch import nn

from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.inputs import Inputs
from flopbench.models import foreign
from flopbench.models.factory import perturb
from flopbench.regression import exact
from flopbench.regression.decision import Outcome
from flopbench.regression.exact import ExactBaseline, _graph_breaks, compare_exact, measure_exact
from flopbench.regression.footprint import footprint
from flopbench.suites import MinimumEffect, Profile
from flopbench.timing.workload import build_model
from tests.regression import tiny


@cache
def _measured() -> ExactBaseline:
    return measure_exact("tiny", tiny.profile())


def _compare(new, effects=None, base=None):
    return compare_exact(base or _measured(), new, effects or MinimumEffect())


def _altered(**changes):
    first, second = _measured().models
    return _measured().model_copy(update={"models": (first, second.model_copy(update=changes))})


def _failed(new, **options):
    return [change.metric for change in _compare(new, **options).of(Outcome.FAIL)]


def test_taken_twice_the_figures_are_the_same_file(tmp_path):
    again = measure_exact("tiny", tiny.profile())
    assert again == _measured()
    again.write(tmp_path / "a.json")
    _measured().write(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert ExactBaseline.read(tmp_path / "a.json") == again
    assert _compare(again).outcome is Outcome.PASS


def test_figures_are_those_of_the_network():
    plain, flop = _measured().models
    model = tiny.flop()
    assert flop.parameters == sum(p.numel() for p in model.parameters())
    assert flop.macs < plain.macs
    assert flop.graph_breaks == 0
    # Products without bias are those of the antisymmetric half: qkv, projection, two of the MLP, patches.
    assert flop.forward.operators["aten.mm"] == 5
    assert "aten.mm" not in plain.forward.operators
    assert flop.train is not None
    assert flop.train.bytes_written > flop.forward.bytes_written


def test_invariance_is_measured_and_held_to_its_tolerance(monkeypatch):
    def build_shallow(*arguments):
        model = build_model(*arguments)
        model.blocks = model.get_submodule("blocks")[:1]  # pyright: ignore[reportIndexIssue]
        return model

    monkeypatch.setattr(exact, "build_model", build_shallow)
    profile = Profile.model_validate(
        {"pairs": ("vit_ti16.flop",), "batch_sizes": (1,), "image_sizes": (32,), "num_classes": 10}
    )
    measured = measure_exact("x", profile)
    plain, flop = measured.models
    assert plain.invariance_error is None
    assert flop.invariance_error is not None
    assert 0 < flop.invariance_error < 1e-4
    for error in (1e-3, float("nan")):
        broken = measured.model_copy(
            update={"models": (flop.model_copy(update={"invariance_error": error}),)}
        )
        assert _failed(broken, base=measured) == ["invariance_error"]
    unknown = measured.model_copy(
        update={"models": (plain, flop.model_copy(update={"invariance_error": None}))}
    )
    (lost,) = _compare(unknown, base=measured).of(Outcome.MISSING)
    assert (lost.subject, lost.metric) == (flop.subject, "invariance_error")


def test_another_width_is_another_network():
    profile = {"pairs": ("vit_ti16.flop",), "batch_sizes": 1, "image_sizes": 32, "widths": 32, "depths": 1}
    plain, flop = measure_exact("x", Profile.model_validate(profile)).models
    assert flop.subject == "vit_ti16.flop/32x32/width32/depth1"
    assert flop.macs < plain.macs < 1e6


@pytest.mark.parametrize(
    ("figure", "factor", "fails"),
    [("macs", 1.01, True), ("macs", 0.9, False), ("parameters", 1.01, True), ("parameters", 0.9, True)],
)
def test_more_work_fails_and_another_network_does_too(figure, factor, fails):
    new = _altered(**{figure: int(factor * getattr(_measured().models[1], figure))})
    assert _failed(new) == ([figure] if fails else [])


def test_an_operator_more_fails_and_is_named():
    forward = _measured().models[1].forward
    more = forward.model_copy(update={"operators": {**forward.operators, "aten.clone": 7}})
    (failure,) = _compare(_altered(forward=more)).of(Outcome.FAIL)
    assert failure.metric == "operators"
    assert "aten.clone" in failure.note
    assert _compare(_altered(forward=more), MinimumEffect(operators=0.2)).outcome is Outcome.PASS


def test_a_graph_break_fails():
    assert _failed(_altered(graph_breaks=1)) == ["graph_breaks"]


def test_other_outputs_fail_and_rounding_does_not():
    figures = _measured().models[1]
    for error, failed in ((1e-5, []), (0.1, ["outputs"])):
        outputs = tuple(value + error * figures.output_deviation for value in figures.outputs)
        assert _failed(_altered(outputs=outputs)) == failed


def test_another_torch_is_not_held_to_its_operators():
    new = _altered(forward=_measured().models[1].train).model_copy(update={"torch": "9.9.0"})
    comparison = _compare(new)
    assert comparison.outcome is Outcome.PASS
    assert "operators" not in {change.metric for change in comparison.changes}
    assert any("9.9.0" in note for note in comparison.notes)


def test_other_models_are_refused():
    with pytest.raises(FlopbenchError, match="no model in common"):
        _compare(_altered().model_copy(update={"models": ()}))


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 2}', "\x00", "[" * 10_000, "NaN"])
def test_a_damaged_baseline_is_named(tmp_path, content):
    (tmp_path / "exact.json").write_text(content)
    with pytest.raises(FlopbenchError, match=r"exact\.json is no exact baseline"):
        ExactBaseline.read(tmp_path / "exact.json")


def test_views_are_free_and_copies_are_not():
    x = torch.zeros(4, 8)
    assert footprint(lambda: x.t().unsqueeze(0)[:, 2:]).calls == 0
    copied = footprint(lambda: x.t().contiguous())
    assert copied.operators == {"aten.clone": 1}
    assert copied.bytes_written == 4 * 8 * 4
    assert footprint(lambda: x.add_(1)).operators == {"aten.add_": 1}
    both = footprint(lambda: (x.clone(), x.add_(1)))
    assert copied.difference(both) == "+1 aten.add_"


class _Structured(nn.Module):
    def __init__(self, form, classes=10):
        super().__init__()
        self.form = form
        self.classes, self.boxes = nn.Linear(48, classes), nn.Linear(48, 4)

    def forward(self, x):
        x = x.flatten(2)[..., :16].flatten(1)
        return self.form(self.classes(x), self.boxes(x))


def _structured(form, monkeypatch):
    monkeypatch.setattr(exact, "build_model", lambda *arguments: perturb(_Structured(form)))
    return measure_exact("x", tiny.profile())


@pytest.mark.parametrize(
    "form", [lambda a, b: (a, b), lambda a, b: [a, b], lambda a, b: {"out": a, "aux": b}]
)
def test_networks_of_several_outputs_have_all_of_them_gated(form, monkeypatch):
    figures = _structured(form, monkeypatch).models[0]
    assert figures.macs == 48 * 14
    # Both products of weights, and none of an input that needs no gradient.
    assert figures.train is not None
    assert figures.train.operators["aten.mm"] == 2
    whole = _structured(lambda a, b: torch.cat([a, b], 1), monkeypatch).models[0]
    assert figures.output_deviation == whole.output_deviation
    # Of each of them the first: the second begins where the first ends.
    assert figures.outputs[:8] == whole.outputs
    assert len(figures.outputs) == 16


def _leave(*arguments):
    sys.exit(1)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda a, b: (a, b * math.nan), "not finite"),
        (lambda a, b: None, "holds no number"),
        (_leave, "SystemExit: 1"),
        (lambda a, b: a @ b, "RuntimeError"),
    ],
)
def test_a_network_without_figures_is_no_regression(form, said, monkeypatch):
    with pytest.raises(NothingMeasuredError, match=said):
        _structured(form, monkeypatch)


def test_constant_outputs_have_no_deviation_to_divide_by():
    constant = _altered(outputs=(2.0,) * 8, output_deviation=0.0)
    moved = _altered(outputs=(2.1,) * 8, output_deviation=0.0)
    assert _failed(constant, base=constant) == []
    assert _failed(moved, base=constant) == ["outputs"]


class _Broken(nn.Module):
    def forward(self, x):
        x = x * 2
        torch._dynamo.graph_break()
        return x + 1


def test_graph_breaks_are_counted():
    assert _graph_breaks(_Broken(), Inputs(torch.zeros(2))) == 1
    assert _graph_breaks(tiny.flop(), Inputs(torch.zeros(1, 3, 32, 32))) == 0


class _Tokens(nn.Module):
    """Tokens and a mask in, a dict of a score per token, a state of another shape, and whole numbers out."""

    def __init__(self, width=8):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(11, width), nn.LSTM(width, width, batch_first=True)

    def forward(self, tokens, mask=None):
        features, (state, _) = self.rnn(self.embed(tokens))
        if mask is not None:
            features = features * mask[..., None]
        return {"features": features, "state": state, "last": tokens[:, -1], "loss": features.square().mean()}


class _Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, images, targets=None):
        if self.training and targets is None:
            raise ValueError("targets are needed in training")
        return [{"boxes": self.head(image), "scores": image[:, 0]} for image in images]


def _tokens(batch_size):
    return {"tokens": torch.randint(11, (batch_size, 5)), "mask": torch.rand(batch_size, 5) > 0.2}


def _longer(batch_size):
    return torch.zeros(batch_size, 9, dtype=torch.int64)


def _ragged(batch_size):
    return [torch.rand(3 + index, 4) for index in range(batch_size)]


def _own(given, **pair):
    foreign.put(given)
    table = {"baseline": "python:a", "candidate": "python:a", "inputs": "python:inputs", **pair}
    profile = Profile.model_validate({"pairs": (table,), "batch_sizes": 1, "image_sizes": 32})
    return measure_exact("x", profile)


def test_networks_of_ones_own_are_held_to_their_figures_on_their_own_inputs():
    torch.manual_seed(0)
    network = _Tokens()
    measured = _own({"a": network, "inputs": _tokens}, perturb=False)
    (figures,) = measured.models
    assert figures.subject == "python:a+python:inputs/32x32"
    assert figures.macs == 5 * 2 * 4 * 8 * 8
    # The compiler leaves what holds an LSTM to Python, as a whole: there is not one graph.
    assert figures.graph_breaks == 1
    assert figures.train is not None
    # Features, state, last token, loss.
    assert len(figures.outputs) == 8 + 8 + 2 + 1
    assert (
        _compare(_own({"a": network, "inputs": _tokens}, perturb=False), base=measured).outcome
        is Outcome.PASS
    )
    with torch.no_grad():
        network.embed.weight += 0.1
    assert _failed(_own({"a": network, "inputs": _tokens}, perturb=False), base=measured) == ["outputs"]


def test_a_loss_of_ones_own_is_what_is_differentiated():
    network = _Tokens()
    whole = _own({"a": network, "inputs": _tokens}).models[0].train
    part = _own({"a": network, "inputs": _tokens}, loss="loss").models[0].train
    assert whole is not None
    assert part is not None
    assert part.calls < whole.calls


def test_a_network_that_cannot_be_trained_like_this_is_held_to_the_rest_and_it_is_said():
    measured = _own({"a": _Detector(), "inputs": _ragged})
    (figures,) = measured.models
    assert figures.train is None
    comparison = _compare(measured, base=measured)
    assert comparison.outcome is Outcome.PASS
    assert any(
        "no training step is compared, it fails: ValueError: targets are needed" in n
        for n in comparison.notes
    )
    trained = figures.model_copy(update={"train": figures.forward})
    (lost,) = _compare(measured, base=measured.model_copy(update={"models": (trained,)})).of(Outcome.MISSING)
    assert lost.metric == "train_operators"


def test_the_same_network_on_other_inputs_is_another_subject():
    foreign.put({"a": _Tokens()})
    tables = [
        {"baseline": "python:a", "candidate": "python:a", "inputs": f"{__name__}:{name}"}
        for name in ("_tokens", "_longer")
    ]
    profile = Profile.model_validate({"pairs": tables, "batch_sizes": 1, "image_sizes": 32})
    short, long = measure_exact("x", profile).models
    assert long.subject == short.subject.replace("_tokens", "_longer")
    assert short.macs < long.macs


def test_operators_that_no_macs_are_counted_of_are_named():
    altered = _altered(uncounted={"aten::fft_rfft": 2})
    assert any(note.endswith("the MACs leave out aten::fft_rfft") for note in _compare(altered).notes)


def test_effects_are_part_of_the_suite_but_not_of_its_digest():
    stated = tiny.suite(minimum_effect={"macs": 0.5, "cells": {"*flop/*": {"macs": 0.1}}})
    assert stated.digest == tiny.suite().digest
    assert stated.minimum_effect.of("macs", "a.flop/b1") == 0.1
    assert stated.minimum_effect.of("macs", "a/b1") == 0.5
    with pytest.raises(FlopbenchError, match=r"minimum_effect: unknown key 'mac'; did you mean macs"):
        tiny.suite(minimum_effect={"mac": 0.5})
