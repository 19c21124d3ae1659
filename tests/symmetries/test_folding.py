"""Layers that hold the weights that they compute with: the same networks, for inference alone."""

from typing import Any

import pytest
import torch
from torch import nn

from flopbench.cells import Cell
from flopbench.inputs import Inputs
from flopbench.kernels import token_linear
from flopbench.kernels.dispatch import idiom
from flopbench.models.factory import perturb
from flopbench.symmetries import FLOP, Halves, fold, parts_of
from flopbench.symmetries.flop import FlopDepthwise, FoldedDepthwise
from flopbench.timing.workload import make_workload
from tests.models.networks import ALL, build_shallow

X = Halves(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4))


def network(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(perturb(layer)).eval()


@pytest.fixture
def depthwise() -> nn.Sequential:
    return network(FLOP.depthwise(8, 5, "channels_last"))


def operators(model: nn.Module, *inputs: Any) -> list[str]:
    """What a compiler is given."""
    names = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        names.extend(str(node.target) for node in graph.graph.nodes if node.op != "placeholder")
        return graph

    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(model, backend=backend, fullgraph=True)(*inputs)
    return names


SYMMETRIC = [("vit", version) for version in ("octic", "octic_hybrid", "octic_early_invariant")]


@pytest.mark.parametrize(("family", "version"), [*ALL, *SYMMETRIC])
def test_folded_networks_give_the_same(monkeypatch, family, version):
    # As on a GPU, where token products are padded.
    monkeypatch.setattr("flopbench.symmetries.plain.aligned", token_linear.padded)
    size = (8, 8) if "octic" in version else (8, 12)
    model = perturb(build_shallow(family, version, image_size=size)).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        before = model(images)
        fold(model)
        torch.testing.assert_close(model(images), before)
        # A compiler takes them whole, that of the oldest torch that is supported too.
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), before)
    assert not any(isinstance(module, FlopDepthwise) for module in model.modules())


@pytest.mark.parametrize(("version", "centred"), [("flop", True), ("plain", False), ("hybrid", False)])
def test_branches_take_over_scales_and_centring(version, centred):
    """Centring, too, where norms of parts alone read their sum: an invariantisation needs its means."""
    model = perturb(build_shallow("vit", version)).eval()
    images = torch.randn(2, 3, 8, 12)
    with idiom({}):
        taken = sum("mean" in name for name in operators(model, images))
        fold(model)
        left = sum("mean" in name for name in operators(model, images))
    assert not any("gamma" in name for name, _ in model.named_parameters())
    # Of two parts in each of five norms; what is centred at the entry takes two means itself.
    assert taken - left == (2 * 5 - 2 if centred else 0)
    largest = max(part.mean(dim=-1).abs().max().item() for part in parts_of(model.states(images)[-1]))
    assert (largest < 1e-6) is centred


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.blocks[0].mlp.fc2.register_forward_hook(lambda *_: None),
        lambda model: setattr(model.blocks[1].attn, "proj", nn.Sequential(model.blocks[1].attn.proj)),
        lambda model: setattr(model.blocks[1].mlp, "fc2", model.blocks[0].mlp.fc2),
        lambda model: setattr(model.blocks[1].mlp.fc2, "s", model.blocks[0].mlp.fc2.s),
        lambda model: setattr(model.blocks[0], "attn", nn.Identity()),
        lambda model: setattr(model, "__class__", type("Mine", (type(model),), {})),
        lambda model: model.half(),
    ],
    ids=["hook", "wrapped", "shared", "shared within", "another attention", "subclass", "half precision"],
)
def test_branches_keep_scales_that_have_no_place_to_go(change):
    model = perturb(build_shallow("vit", "flop")).eval()
    change(model)
    fold(model)
    assert sum("gamma" in name for name, _ in model.named_parameters()) == 8


def test_branches_keep_scales_within_another_network_or_when_told_to():
    for fold_it in (lambda model: fold(nn.Sequential(model)), lambda model: fold(model, branches=False)):
        model = perturb(build_shallow("vit", "flop")).eval()
        fold_it(model)
        assert sum("gamma" in name for name, _ in model.named_parameters()) == 8


def test_what_is_folded_stays_so():
    model = perturb(build_shallow("vit", "flop")).eval()
    fold(model)
    once = str(model)
    fold(model)
    assert str(model) == once


def test_branches_that_share_weights_are_folded_once_each():
    model = perturb(build_shallow("vit", "flop")).eval()
    first, second = (block.mlp.fc2.s for block in model.blocks)
    second.weight = first.weight
    images = torch.randn(2, 3, 8, 12)
    before = model(images)
    fold(model)
    torch.testing.assert_close(model(images), before)


def test_compiled_nothing_is_left_to_compute(depthwise):
    assert "flip" in str(operators(depthwise, X))
    fold(depthwise)
    assert "flip" not in str(operators(depthwise, X))


def test_no_weight_can_be_out_of_date(depthwise):
    fold(depthwise)
    (layer,) = depthwise
    assert isinstance(layer, FoldedDepthwise)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    with torch.no_grad():
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        compiled(X)

        def assert_fresh(x: Halves = X) -> None:
            s, _ = layer(x)
            torch.testing.assert_close(compiled(x)[0], s)
            expected = torch.nn.functional.conv2d(
                x.s.permute(0, 3, 1, 2), layer.kernel_s, layer.bias_s, padding=2, groups=4
            )
            torch.testing.assert_close(s[..., :2], expected.permute(0, 2, 3, 1)[..., :2])

        layer.kernel_s.mul_(3)
        assert_fresh()
        layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})
        assert_fresh()
        layer.kernel_s.data = layer.kernel_s.data + 1
        assert_fresh()
        layer.double()
        assert_fresh(Halves(X.s.double(), X.a.double()))
        learnt = FLOP.depthwise(8, 5, "channels_last").state_dict()
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.load_state_dict(learnt)


def test_layers_that_somebody_looks_into_stay(depthwise):
    depthwise[0].register_forward_hook(lambda *_: None)
    fold(depthwise)
    assert isinstance(depthwise[0], FlopDepthwise)


@pytest.mark.parametrize("pass_", ["forward", "backward", "train"])
def test_only_networks_that_infer_are_folded(pass_):
    cell = Cell.model_validate(
        {
            "pair": {"baseline": "convnext_iso_s", "candidate": "convnext_iso_s.flop"},
            "device": "cpu",
            "batch_size": 2,
            "pass": pass_,
            "dtype": "fp32",
            "mode": "eager",
            "image_size": (8, 12),
        }
    )
    model = perturb(build_shallow("convnext", "flop"))
    workload = make_workload(model, Inputs(torch.randn(2, 3, 8, 12)), cell)
    workload.run()
    kinds = {type(module) for module in workload.model.modules()}
    assert (FoldedDepthwise in kinds) is (pass_ == "forward")
    assert (FlopDepthwise in kinds) is (pass_ != "forward")
