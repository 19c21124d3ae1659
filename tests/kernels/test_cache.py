"""Kernels built from halves are kept between forward passes of inference, and never when stale."""

import copy
import pickle
from typing import Any
from unittest import mock

import pytest
import torch

from flopbench.models.factory import perturb
from flopbench.symmetries import FLOP, OCTIC, Halves


@pytest.fixture
def layer():
    return perturb(FLOP.depthwise(8, 5, "channels_last")).eval()


@pytest.fixture
def x():
    return Halves(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4))


def assert_fresh(layer, x):
    """The same as without a cache."""
    with torch.no_grad():
        got = layer(x)
    expected = layer(x)
    assert expected.s.requires_grad
    torch.testing.assert_close(tuple(got), tuple(expected), rtol=0, atol=0)


def builds(layer, x):
    """How often the kernels are built in two forward passes."""
    with mock.patch.object(layer, "_build", wraps=layer._build) as build:
        layer(x)
        layer(x)
    return build.call_count


def test_inference_builds_once_and_training_every_time(layer, x):
    with torch.no_grad():
        assert builds(layer, x) == 1
        assert builds(layer, x) == 0
    assert builds(layer, x) == 2


def test_kernels_of_any_group_are_kept_and_folded():
    layer: Any = perturb(OCTIC.depthwise(16, 3, "channels_last")).eval()
    x = OCTIC.feature_of(torch.randn(shape) for shape in [(2, 4, 4, 2)] * 4 + [(2, 4, 4, 4)] * 2)
    expected = layer(x)
    with torch.no_grad():
        assert builds(layer, x) == 1
        assert builds(layer, x) == 0
        layer.bias.mul_(2)
        assert builds(layer, x) == 1
        layer.bias.div_(2)
        torch.testing.assert_close(tuple(layer(x)), tuple(expected), rtol=0, atol=0)
        folded: Any = layer.folded()
        torch.testing.assert_close(tuple(folded(x)), tuple(expected), rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert builds(layer.train(), x) == 2


@pytest.mark.parametrize("fused", [False, True])
def test_optimiser_steps_are_seen(layer, x, fused):
    assert_fresh(layer, x)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=fused)
    for _ in range(2):
        before = layer.weight_ss.clone()
        torch.cat(layer(x)).square().sum().backward()
        optimiser.step()
        assert not torch.equal(layer.weight_ss, before)
        assert_fresh(layer, x)


def test_steps_of_a_fused_optimiser_in_compiled_training_are_seen(layer, x):
    # Such steps leave no trace on the parameters, and compiled code none on the module.
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    assert_fresh(layer, x)
    layer.train()
    with torch.no_grad():
        layer(x)
    torch.cat(compiled(x)).square().sum().backward()
    optimiser.step()
    assert_fresh(layer.eval(), x)


def test_loaded_replaced_and_edited_weights_are_seen(layer, x):
    assert_fresh(layer, x)
    layer.load_state_dict(perturb(FLOP.depthwise(8, 5, "channels_last"), seed=1).state_dict())
    assert_fresh(layer, x)
    layer.weight_as = torch.nn.Parameter(layer.weight_as.detach().clone() + 1)
    assert_fresh(layer, x)
    layer.weight_as.data = layer.weight_as.data + 1
    assert_fresh(layer, x)
    with torch.no_grad():
        layer.bias.add_(1)
    assert_fresh(layer, x)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(layer.parameters(), lr=1.0, foreach=True).step()
    assert_fresh(layer, x)


def test_copies_and_conversions_have_their_own(layer, x):
    assert_fresh(layer, x)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight_ss.mul_(3)
    assert_fresh(twin, x)
    assert_fresh(layer, x)
    assert_fresh(pickle.loads(pickle.dumps(layer)), x)
    wide = Halves(x.s.double(), x.a.double())
    layer.double()
    assert_fresh(layer, wide)
    layer.float()
    assert_fresh(layer, x)


def test_inference_mode_leaves_nothing_that_training_cannot_use(layer, x):
    with torch.inference_mode():
        layer(x)
    assert_fresh(layer, x)
    torch.cat(layer(x)).sum().backward()
    assert layer.weight_ss.grad is not None


def test_compiled_and_exported_code_builds_from_the_weights(layer, x):
    with torch.no_grad():
        layer(x)
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        exported = torch.export.export(layer, (x,)).module()
        compiled(x)
        layer.weight_ss.mul_(3)
        torch.testing.assert_close(tuple(compiled(x)), tuple(layer(x)))
    names = {name for name, _ in exported.named_parameters()}
    assert "weight_ss" in names


def test_works_without_values(x):
    with torch.device("meta"), torch.no_grad():
        layer = FLOP.depthwise(8, 5, "channels_last")
        meta = Halves(torch.empty(2, 3, 4, 4), torch.empty(2, 3, 4, 4))
        layer(meta)
    layer = perturb(layer.to_empty(device="cpu"))
    assert_fresh(layer, x)


def test_the_cache_is_no_part_of_the_state(layer, x):
    with torch.no_grad():
        layer(x)
    assert set(layer.state_dict()) == {"weight_ss", "weight_as", "weight_sa", "weight_aa", "bias"}
