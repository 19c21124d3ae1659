"""What training asks of the networks: state, precision, compilers, checkpoints, regularisation, learning."""

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from flopbench.models.factory import num_parameters, perturb
from flopbench.symmetries import FLOP
from flopbench.testing import equivariance_error, random_images
from tests.models.networks import ALL, build, build_shallow

EQUIVARIANT = ["vit", "resmlp", "convnext", "convnext_iso"]


def images(size=(8, 12), batch=2):
    return random_images(batch, size)


@pytest.mark.parametrize(("family", "version"), ALL)
def test_state_dict_round_trip(family, version):
    model = perturb(build(family, version)).eval()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin = build(family, version).eval()
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(model(images()), twin(images()))


@pytest.mark.parametrize(("family", "version"), ALL)
def test_compiles_without_a_graph_break(family, version):
    model = perturb(build_shallow(family, version)).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), model(images()))


@pytest.mark.parametrize("family", EQUIVARIANT)
def test_compiles_forward_and_backward(family):
    model = perturb(build_shallow(family))
    compiled: Any = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    x = images()
    for network in (model, compiled):
        network(x).square().sum().backward()
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(model.parameters(), compiled.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what inductor imports
@pytest.mark.parametrize("family", EQUIVARIANT)
def test_compiles_by_inductor(family):
    model = perturb(build_shallow(family)).eval()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), model(images()), rtol=1e-4, atol=1e-4)
        assert equivariance_error(compiled, images(), FLOP.generators) < 1e-4


@pytest.mark.parametrize("family", EQUIVARIANT)
def test_exports(family):
    model = perturb(build_shallow(family)).eval()
    program = torch.export.export(model, (images(),))
    torch.testing.assert_close(program.module()(images()), model(images()))
    assert {name for name, _ in program.named_parameters()} == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(("family", "version"), ALL)
def test_autocast(family, version):
    model = perturb(build(family, version))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images())
    logits.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    exact = model(images())
    assert (logits - exact).abs().max() < 0.2 * exact.std()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", EQUIVARIANT)
def test_pure_half_precision(family, dtype):
    model = perturb(build(family)).eval()
    exact = model(images())
    logits = model.to(dtype)(images().to(dtype))
    assert logits.dtype == dtype
    assert (logits - exact).abs().max() < 0.2 * exact.std()


@pytest.mark.parametrize(("family", "version"), ALL)
def test_gradient_checkpointing_gives_the_same_gradients(family, version):
    model = perturb(build(family, version))
    twin = copy.deepcopy(model)
    twin.set_grad_checkpointing()
    saved = {}
    for network in (model, twin):
        kept = 0

        def pack(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(images()).square().sum()
        saved[network] = kept
        loss.backward()
    assert saved[twin] < 0.7 * saved[model]
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            torch.testing.assert_close(theirs.grad, ours.grad)


@pytest.mark.parametrize("family", EQUIVARIANT)
def test_stochastic_depth_is_for_training_only(family):
    torch.manual_seed(0)
    model = perturb(build(family, drop_path=0.5))
    x = images(batch=8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_stochastic_depth_grows_linearly_in_convnext_alone():
    def rates(family):
        return [
            round(m.probability, 3)
            for m in build(family, drop_path=0.3).modules()
            if hasattr(m, "probability")
        ]

    assert rates("vit") == rates("resmlp") == [0.3] * 8
    assert rates("convnext") == [0.0, 0.1, 0.2, 0.3]


def test_dropout_acts_in_training_and_keeps_the_symmetry_otherwise():
    model = perturb(build("vit", dropout=0.5))
    assert not torch.equal(model(images()), model(images()))
    assert equivariance_error(model.eval(), images(), FLOP.generators) < 1e-5


def test_no_weight_decay_names_tokens_and_position_embeddings():
    assert build("vit").no_weight_decay() == {
        "cls_token.weight_s",
        "pos_embed.weight_s",
        "pos_embed.weight_a",
    }
    assert build("vit", "plain").no_weight_decay() == {"cls_token.weight", "pos_embed.weight"}
    assert build("resmlp").no_weight_decay() == build("convnext").no_weight_decay() == set()


@pytest.mark.parametrize(("family", "version"), ALL)
def test_initialisation_is_the_familys(family, version):
    torch.manual_seed(0)
    model = build(family, version)
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf.startswith("gamma"):
            assert parameter.unique().tolist() == pytest.approx([1e-6 if family == "convnext" else 1e-4])
        elif "patch_embed" in name and "convnext" not in family:
            assert parameter.abs().max() <= 48**-0.5, name
        elif "bias" in leaf:
            assert not parameter.any(), name
        elif parameter.ndim > 1:
            assert 0.005 < parameter.std() < 0.035, name


@pytest.mark.parametrize(("family", "version"), ALL)
def test_perturbation_leaves_nothing_as_it_was_and_activations_of_order_one(family, version):
    model = build(family, version)
    before = {name: p.clone() for name, p in model.named_parameters()}
    perturb(model)
    for name, parameter in model.named_parameters():
        assert (parameter != before[name]).all(), name
    assert 0.3 < model.eval()(images(batch=8)).std() < 5
    twin = perturb(build(family, version))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    assert not torch.equal(perturb(twin, seed=1).head.weight, model.head.weight)


def test_perturbation_after_building_without_values():
    with torch.device("meta"):
        model = build("convnext", "hybrid")
    model = perturb(model.to_empty(device="cpu")).eval()
    expected = perturb(build("convnext", "hybrid")).eval()
    assert num_parameters(model) == num_parameters(expected)
    assert torch.equal(model(images()), expected(images()))


def stripes(count, seed):
    """Images of a slanted stripe in noise, `[count, 3, 16, 16]`: is it steep or flat? Mirror images agree."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    side = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    slope = torch.where(labels == 1, 2.0, 0.5) * side
    y, x = torch.meshgrid(torch.arange(16) - 7.5, torch.arange(16) - 7.5, indexing="ij")
    distance = (y - slope[:, None, None] * x) / (1 + slope.square()).sqrt()[:, None, None]
    picture = (-distance.square() / 4).exp() * 3
    noise = torch.randn(count, 3, 16, 16, generator=generator) * 0.5
    return picture[:, None] + noise, labels


@pytest.mark.parametrize(
    ("family", "version"),
    [
        pytest.param("vit", "plain", marks=pytest.mark.slow),
        pytest.param("vit", "flop", marks=pytest.mark.slow),
        ("vit", "hybrid"),
        ("resmlp", "flop"),
        pytest.param("convnext", "flop", marks=pytest.mark.slow),
    ],
)
def test_learns_what_mirror_images_share(family, version):
    torch.manual_seed(0)
    options = {"layer_scale": 0.1, "drop_path": 0.05}
    model = build(family, version, (16, 16), num_classes=2, **options)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    steps = 80
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(steps):
        x, labels = stripes(64, seed=step)
        optimiser.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()
    x, labels = stripes(256, seed=10_000)
    with torch.no_grad():
        accuracy = (model(x).argmax(1) == labels).float().mean().item()
    assert accuracy > 0.95
    error = equivariance_error(model.double(), x.double(), FLOP.generators)
    assert error < 1e-12 if version == "flop" else error > 1e-3
