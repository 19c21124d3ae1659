"""Single layers as networks: what they take of an image, and that both passes can be timed."""

import pytest
import torch

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.flops import count_forward
from flopbench.inputs import inputs_for
from flopbench.models.catalog import LAYERS, label_of, parse_name
from flopbench.models.factory import create_model, perturb
from flopbench.models.single import KINDS
from flopbench.pairs import Pair
from flopbench.structures import tensors
from flopbench.suites import load_suite, override
from flopbench.timing.workload import build_model, cell_inputs, make_workload

NARROW = [name for name in LAYERS if name.endswith("_192")]


def outputs(name: str, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    height, width = images.shape[-2:]
    output = perturb(create_model(name, image_size=(height, width))).eval()(images)
    return output if isinstance(output, tuple) else (output,)


def test_every_kind_has_a_name_for_each_width():
    assert {name.rpartition("_")[0] for name in LAYERS} == set(KINDS)


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("size", [(64, 64), (32, 48)], ids=["even grid", "odd grid"])
def test_both_versions_give_as_many_elements(name, size):
    if "downsample" in name and size == (32, 48):
        pytest.skip("an odd grid does not halve")
    images = torch.randn(2, 3, *size)
    plain, flop = outputs(name, images), outputs(f"{name}.flop", images)
    assert sum(part.numel() for part in plain) == sum(part.numel() for part in flop)
    assert all(part.isfinite().all() for part in (*plain, *flop))


def test_the_input_is_the_pixels_uncopied():
    images = torch.randn(2, 3, 32, 32)
    (plain,) = outputs("gelu_192", images)
    torch.testing.assert_close(plain, torch.nn.functional.gelu(images.view(2, 16, 192)))


@pytest.mark.parametrize("kind", ["linear", "mlp", "patch_embed", "downsample", "token_linear"])
def test_products_cost_half(kind):
    models = (create_model(f"{kind}_192{version}", image_size=64) for version in ("", ".flop"))
    plain, flop = (count_forward(model, inputs_for(model, None, 1, (64, 64))) for model in models)
    assert plain.macs == 2 * flop.macs > 0
    assert not flop.uncounted


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_features(kind):
    model = perturb(create_model(f"{kind}_192.flop", image_size=64))
    output = model(torch.randn(2, 3, 64, 64))
    assert all(part.requires_grad for part in output)


@pytest.mark.parametrize("pass_", ["forward", "backward"])
def test_a_layer_of_several_parts_is_a_workload(pass_):
    cell = Cell.model_validate(
        {
            "pair": Pair.of("linear_192.flop"),
            "device": "cpu",
            "batch_size": 2,
            "pass": pass_,
            "dtype": "fp32",
            "mode": "eager",
            "image_size": (32, 32),
        }
    )
    device = torch.device("cpu")
    images = cell_inputs(cell, device)
    model = build_model("linear_192.flop", cell, device)
    workload = make_workload(model, images, cell)
    workload.run()
    assert sum(part.numel() for part in tensors(workload.logits(images))) == 2 * 16 * 192
    gradients = [parameter.grad is not None for parameter in model.parameters()]
    assert all(gradients) if pass_ == "backward" else not any(gradients)


def test_a_layer_is_mirrored_and_not_invariant():
    assert not parse_name("layer_norm_384.flop").invariant
    assert label_of("layer_norm_384.flop") == "E(layer norm 384)"
    with pytest.raises(FlopbenchError, match=r"unknown version of gelu_192 'hybrid'"):
        parse_name("gelu_192.hybrid")


@pytest.mark.parametrize(("passes", "modes"), [(("train",), ("eager",)), (("backward",), ("compile",))])
def test_what_a_layer_does_not_have_is_refused(passes, modes):
    profile = override(load_suite("layers").profile("cpu"), passes=passes, modes=modes)
    with pytest.raises(FlopbenchError, match="linear_768 is a single layer"):
        list(profile.cells("cpu"))


def test_the_suite_has_every_layer():
    names = {pair.candidate.removesuffix("_768.flop") for pair in load_suite("layers").profile("cpu").pairs}
    assert names == set(KINDS)
