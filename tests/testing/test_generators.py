"""Every check runs over all generators of a symmetry: what commutes with one of two has not that symmetry."""

from functools import partial
from typing import Any

import pytest
import torch

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.models.factory import create_model
from flopbench.pairs import Pair
from flopbench.regression import exact
from flopbench.regression.decision import Outcome
from flopbench.regression.exact import compare_exact, measure_exact
from flopbench.runner.worker import inspect
from flopbench.suites import MinimumEffect, Profile
from flopbench.symmetries import FLOP, PLAIN, Generator, Halves, schedules
from flopbench.symmetries.flop import Flop
from flopbench.symmetries.generators import quarter_turn
from flopbench.testing import BY_SYMMETRY, assert_equivariant, equivariance_error, random_images, verify
from flopbench.testing.verify import verify_model
from flopbench.timing.bench import Bench
from flopbench.timing.checks import WrongOutputError
from tests.models.networks import build

SIZE = (8, 8)
TURN = Generator("quarter turn", quarter_turn, ((0, 1), (1, 1)))


class Turning(Flop):
    """Flopping, and quarter turns that the layers know nothing of."""

    generators = (*Flop.generators, TURN)


@pytest.fixture
def disguised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called octic is built of flop's layers."""
    monkeypatch.setattr(schedules, "load", lambda about: FLOP)


def cell() -> Cell:
    fields = {"device": "cpu", "batch_size": 2, "pass": "forward", "dtype": "fp32", "mode": "eager"}
    size = {"image_size": (32, 32), "num_classes": 10, "depth": 1}
    return Cell.model_validate({"pair": Pair.of("vit_ti16.octic"), **fields, **size})


def test_a_network_that_is_invariant_to_one_generator_only_does_not_pass():
    model, images = build("vit", "flop", SIZE), torch.randn(2, 3, *SIZE)
    assert_equivariant(model, images, action_out=None)
    with pytest.raises(AssertionError, match=r"^not equivariant under a quarter turn: output"):
        assert_equivariant(model, images, action_out=None, symmetry="octic")
    assert_equivariant(build("vit", "octic", SIZE), images, symmetry="octic")


def test_the_error_of_invariance_is_the_largest_of_any_generator():
    images = random_images(2, 6)
    left, top = (lambda x: x[..., :3].mean((2, 3))), (lambda x: x[..., :3, :].mean((2, 3)))
    assert equivariance_error(top, images, FLOP.generators) < 1e-5
    assert equivariance_error(top, images, [TURN]) > 0.1
    for model in (left, top):
        errors = [equivariance_error(model, images, [g]) for g in Turning.generators]
        assert equivariance_error(model, images, Turning.generators) == max(errors) > 0.1
    with pytest.raises(ValueError, match="empty"):
        equivariance_error(left, images, PLAIN.generators)


@pytest.mark.parametrize("version", ["octic", "octic_early_invariant"])
def test_verify_names_the_generator(version: str, monkeypatch: pytest.MonkeyPatch, request: Any):
    monkeypatch.setattr(verify, "create_model", partial(create_model, depth=2))
    assert verify_model(f"vit_ti16.{version}", 32).passed
    request.getfixturevalue("disguised")
    result = verify_model(f"vit_ti16.{version}", 32)
    assert (result.what, result.broken) == ("logits", ("quarter turn",))
    assert all(set(errors) == {"flop", "quarter turn"} for errors in result.errors.values())


@pytest.mark.parametrize(
    ("name", "what", "options"),
    [("vit_ti16.hybrid", "first half", {"depth": 2}), ("depthwise_192.flop", "layer", {})],
)
def test_features_are_verified_for_every_generator(
    name: str, what: str, options: dict[str, int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(verify, "create_model", partial(create_model, **options))
    monkeypatch.setattr(Flop, "generators", Turning.generators)
    result = verify_model(name, 32)
    assert (result.what, result.broken) == (what, ("quarter turn",))


@pytest.mark.usefixtures("disguised")
def test_a_worker_times_nothing_that_lacks_a_generator():
    failure = inspect(lambda *_: None, cell()).failure
    assert "D8(ViT-192×1/16) is not invariant under a quarter turn: relative error" in failure
    assert "on random images" in failure
    with pytest.raises(WrongOutputError, match="not invariant under a quarter turn in fp32 eager"):
        Bench.of(cell()).check()


def test_the_exact_gate_fails_what_lacks_a_generator(monkeypatch: pytest.MonkeyPatch, request: Any):
    monkeypatch.setattr(exact, "_graph_breaks", lambda *_: 0)
    fields = {
        "pairs": ["vit_ti16.octic"], "batch_sizes": 1, "image_sizes": 32, "depths": 1, "num_classes": 10
    }  # fmt: skip
    profile = Profile.model_validate(fields)
    base = measure_exact("x", profile)
    assert base.models[1].invariance_error is not None
    assert base.models[1].invariance_error < 1e-4
    request.getfixturevalue("disguised")
    failures = compare_exact(base, measure_exact("x", profile), MinimumEffect()).of(Outcome.FAIL)
    (note,) = (failure.note for failure in failures if failure.metric == "invariance_error")
    assert note.startswith("the logits before and after a quarter turn of the image differ by")


def test_a_marker_stands_for_each_generator_within_actions_of_ones_own():
    seen = []

    def network(x: torch.Tensor, size: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(x.detach())
        return {"image": x * size, "mean": x.mean((1, 2, 3))}

    given, images = (torch.randn(2, 3, 4, 4), torch.tensor(2.0)), {"image": BY_SYMMETRY}
    how = {"dtypes": [torch.float32], "gradients": False}
    assert_equivariant(network, given, (BY_SYMMETRY, None), images, symmetry=Turning(), **how)
    for generator in Turning.generators:
        assert any(torch.equal(x, generator(given[0])) for x in seen)
    with pytest.raises(AssertionError, match=r"^not equivariant under a flop: output image"):
        assert_equivariant(network, given, (BY_SYMMETRY, None), None, symmetry=Turning(), **how)
    # A generator is an action like any other.
    assert_equivariant(network, given, (TURN, None), {"image": TURN}, **how)


def test_what_is_turned_has_to_be_square():
    for x in (torch.randn(2, 3, 4, 6), Halves(torch.randn(2, 4, 6, 3), torch.randn(2, 4, 6, 3))):
        with pytest.raises(
            FlopbenchError, match=r"^a quarter turn acts on squares, not on 4×6: give as many"
        ):
            assert_equivariant(lambda x: x, x, symmetry=Turning())
    with pytest.raises(FlopbenchError, match="a quarter turn acts on squares"):
        equivariance_error(lambda x: x.mean((2, 3)), random_images(2, (4, 6)), Turning.generators)


def test_a_symmetry_that_moves_nothing_or_is_unknown_is_refused():
    with pytest.raises(FlopbenchError, match="plain moves nothing"):
        assert_equivariant(lambda x: x, torch.randn(2, 3, 4, 4), symmetry="plain")
    with pytest.raises(
        FlopbenchError, match=r"symmetry must be a name, e\.g\. 'octic', or a Symmetry, got 8"
    ):
        assert_equivariant(lambda x: x, torch.randn(2, 3, 4, 4), symmetry=8)  # pyright: ignore[reportArgumentType]
    with pytest.raises(FlopbenchError, match="unknown symmetry 'flip'"):
        assert_equivariant(lambda x: x, torch.randn(2, 3, 4, 4), symmetry="flip")
