"""Whole networks are invariant where they promise it, and only there."""

import math

import pytest
import torch
from torch import nn

from flopbench.models.factory import perturb
from flopbench.symmetries import FLOP
from flopbench.testing import assert_equivariant, equivariance_error, random_images
from flopbench.testing.verify import verify_model
from tests.models.networks import ALL, INVARIANT, build

SIZES = {"even": (8, 16), "odd": (8, 12), "tall": (20, 8)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("family", "version"), INVARIANT)
def test_logits_are_invariant_and_gradients_too(family, version, size):
    model = build(family, version, size)
    # The gradients of weights that the head does not see are zero on both sides.
    assert_equivariant(model, torch.randn(2, 3, *size), action_out=None)


@pytest.mark.parametrize("family", ["vit", "resmlp", "convnext", "convnext_iso"])
def test_the_head_over_absolute_values_is_invariant_and_sees_all_channels(family):
    model = build(family, head="absolute")
    assert model.head.in_features == 2 * build(family).head.in_features
    assert_equivariant(model, torch.randn(2, 3, 8, 12))
    # None of its weights is idle.
    model(torch.randn(2, 3, 8, 12)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("attention", ["fused", "unfused"])
def test_the_unfused_attention_is_the_fused_one(attention):
    model = perturb(build("vit", attention=attention).double()).eval()
    twin = build("vit").double().eval()
    twin.load_state_dict(model.state_dict())
    images = random_images(2, (8, 12), torch.float64)
    torch.testing.assert_close(model(images), twin(images))


@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
@pytest.mark.parametrize("version", ["plain", "flop"])
def test_the_memory_format_changes_the_layout_alone(version, memory_format):
    model = perturb(build("convnext", version, memory_format=memory_format)).eval()
    twin = build("convnext", version).eval()
    twin.load_state_dict(model.state_dict())
    images = random_images(2, (8, 12))
    torch.testing.assert_close(model(images), twin(images))
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), twin(images))


@pytest.mark.parametrize(("family", "version"), [pair for pair in ALL if pair not in INVARIANT])
def test_the_others_are_not_invariant(family, version):
    model = perturb(build(family, version)).eval()
    error = equivariance_error(model, random_images(2, (8, 12)), FLOP.generators)
    assert 0.01 < error < math.inf


@pytest.mark.parametrize("size", [(8, 12), (8, 16)])
@pytest.mark.parametrize("family", ["resmlp", "convnext", "convnext_iso"])
def test_a_hybrid_is_equivariant_up_to_the_join(family, size):
    class FirstHalf(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = build(family, "hybrid", size)

        def forward(self, images):
            seen = []
            joins = [m for name, m in self.network.named_modules() if name.endswith("join")]
            [join] = [module for module in joins if not isinstance(module, nn.Identity)]
            with join.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
                self.network(images)
            return seen[0]

    half = FirstHalf()
    (images,), (features,) = FLOP.generators, half.network.first.generators
    assert_equivariant(half, torch.randn(2, 3, *size), images, features)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("version", ["hybrid", "early_invariant"])
def test_half_of_the_blocks_are_equivariant(version, depth):
    from flopbench.symmetries.irreps import IrrepLinear

    model = build("vit", version, depth=depth)
    equivariant = [isinstance(block.mlp.fc1, IrrepLinear) for block in model.blocks]
    assert equivariant == [index < depth // 2 for index in range(depth)]
    assert model(torch.randn(2, 3, 8, 12)).shape == (2, 5)


@pytest.mark.parametrize(("depths", "count"), [((2, 2), 2), ((3, 1), 2), ((1, 3), 2), ((1, 1, 1), 1)])
def test_the_join_of_a_hybrid_convnext_lies_anywhere(depths, count):
    from flopbench.symmetries.flop import FlopDepthwise

    widths = tuple(8 * 2**stage for stage in range(len(depths)))
    model = build("convnext", "hybrid", (16, 16), widths=widths, depths=depths)
    blocks = [block for stage in model.stages for block in stage.blocks]
    assert [isinstance(block.dwconv, FlopDepthwise) for block in blocks].count(True) == count
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 5)


def test_a_deep_network_is_checked_by_name():
    result = verify_model("vit_ti16.hybrid", (32, 48))
    assert result.what == "first half"
    assert result.passed
    fp64, fp32 = (result.errors["random", dtype]["flop"] for dtype in ("fp64", "fp32"))
    assert 0 < fp64 < 1e-12 < fp32
