"""Networks from every kind of file of weights give the logits of those that were saved."""

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import flopbench
from flopbench.errors import FlopbenchError
from flopbench.models.factory import perturb
from flopbench.results.trainings import NetworkInfo
from flopbench.training.networks import load_network
from flopbench.training.weights import save_weights
from tests.models import released, released_octic
from tests.models.test_checkpoints import state_of

VIT: dict[str, Any] = {"patch_size": 4, "width": 16, "depth": 3, "heads": 2}
RESMLP: dict[str, Any] = {"patch_size": 4, "width": 12, "depth": 2}
STAGES = {"patch_size": 4, "widths": (8, 16), "depths": (1, 2)}
ISOTROPIC = {"patch_size": 4, "widths": (16,), "depths": (2,)}


def images(size=16, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same(model, expected, x):
    assert not model.training
    assert expected.std() > 0.01
    assert (model(x) - expected).abs().max() < 1e-4 * expected.std()


RELEASED = {
    "vit_ti16": (VIT, released.vit_shapes("X"), lambda s, x: released.vit(s, x, "X")),
    "vit_ti16.flop": (VIT, released.vit_shapes("E"), lambda s, x: released.vit(s, x, "E")),
    "vit_ti16.hybrid": (VIT, released.vit_shapes("H"), lambda s, x: released.vit(s, x, "H")),
    "vit_ti16.early_invariant": (VIT, released.vit_shapes("I"), lambda s, x: released.vit(s, x, "I")),
    "resmlp_t12": (RESMLP, released.resmlp_shapes("X"), lambda s, x: released.resmlp(s, x, "X")),
    "resmlp_t12.flop": (RESMLP, released.resmlp_shapes("E"), lambda s, x: released.resmlp(s, x, "E")),
    "convnext_t": (STAGES, released.convnext_shapes("X"), lambda s, x: released.convnext(s, x, "X")),
    "convnext_t.flop": (STAGES, released.convnext_shapes("E"), lambda s, x: released.convnext(s, x, "E")),
    "convnext_iso_s.flop": (
        ISOTROPIC,
        released.convnext_shapes("E", widths=(16,), depths=(2,), scaled=False),
        lambda s, x: released.convnext(s, x, "E"),
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_what_the_authors_released(name, tmp_path):
    options, shapes, reference = RELEASED[name]
    state = state_of(shapes)
    torch.save({"model": state}, tmp_path / "checkpoint.pth")
    found = load_network(name, tmp_path / "checkpoint.pth", options=options)
    size = 28 * 2 if name.startswith("convnext_t") else 28 if name.startswith("convnext") else 16
    assert (found.image_size, found.num_classes) == ((size, size), 5)
    assert_same(found.model, reference(state, images(size)), images(size))


def test_a_released_head_is_what_the_file_says(tmp_path):
    state = state_of(released.vit_shapes("E", absolute=True))
    torch.save(state, tmp_path / "absolute.pth")
    found = load_network("vit_ti16.flop", tmp_path / "absolute.pth", options=VIT)
    assert found.options == {**VIT, "head": "absolute"}
    assert_same(found.model, released.vit(state, images(), "E"), images())


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("H8", "vit_ti16.octic_hybrid"),
        ("I8", "vit_ti16.octic_early_invariant"),
        ("I8 linear", "vit_ti16.octic_early_invariant"),
        ("D8", "vit_ti16.octic"),
    ],
)
def test_what_the_octic_authors_released(case, name, tmp_path):
    one = released_octic.CASES[case]
    torch.save({"model": released_octic.state(one)}, tmp_path / "octic.pth")
    options = {"patch_size": one.patch_size, "width": one.width, "depth": one.depth, "heads": one.heads}
    found = load_network(name, tmp_path / "octic.pth", options=options)
    assert found.options == {**options, **({"invariants": one.invariants} if one.invariants else {})}
    assert_same(found.model, torch.tensor(one.logits), released_octic.images(one))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vit_ti16", "a vit of width 16, depth 3, patch_size 4, symmetry flop, not of vit_ti16"),
        ("vit_ti16.hybrid", "symmetry flop, not of vit_ti16.hybrid"),
        ("resmlp_t12.flop", "a vit of width 16"),
    ],
)
def test_a_released_file_of_another_network(name, told, tmp_path):
    torch.save(state_of(released.vit_shapes("E")), tmp_path / "e.pth")
    with pytest.raises(FlopbenchError, match=rf"^e\.pth: these are the weights of .*{told}"):
        load_network(name, tmp_path / "e.pth", options=RESMLP if "resmlp" in name else VIT)


def test_a_released_file_of_another_size_is_named(tmp_path):
    torch.save(state_of(released.vit_shapes("E")), tmp_path / "e.pth")
    with pytest.raises(FlopbenchError, match="width 16, depth 3, patch_size 4, symmetry flop, not of"):
        load_network("vit_s16.flop", tmp_path / "e.pth")


def saved(tmp_path, name, **options):
    network = perturb(flopbench.create_model(name, 16, 5, **options)).eval()
    about = NetworkInfo(
        name=name, options=options, image_size=(16, 16), num_classes=5, mean=(0.1,) * 3, std=(0.2,) * 3
    )
    return network, about


@pytest.mark.parametrize("name", ["vit_ti16", "vit_ti16.flop", "vit_ti16.hybrid"])
@pytest.mark.parametrize("kind", ["ours", "training", "checkpoint", "plain", "wrapped"])
@torch.no_grad()
def test_what_flopbench_wrote(name, kind, tmp_path):
    network, about = saved(tmp_path, name, **VIT)
    state, options = network.state_dict(), None
    path = tmp_path / "weights.safetensors"
    save_weights(path, state, about)
    if kind == "training":
        path = tmp_path
    elif kind == "checkpoint":
        path = tmp_path / "checkpoint.pt"
        torch.save({"step": 3, "model": state, "optimiser": {}}, path)
    elif kind == "plain":
        path, options = tmp_path / "plain.safetensors", VIT
        save_file(state, path)
    elif kind == "wrapped":
        path, options = tmp_path / "wrapped.pt", VIT
        torch.save({"state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()}}, path)
    found = load_network(name, path, options=options, image_size=(16, 16) if options else None)
    assert (found.image_size, found.num_classes, found.options) == ((16, 16), 5, VIT)
    assert found.mean == (None if options else (0.1, 0.1, 0.1))
    assert_same(found.model, network(images()), images())


@torch.no_grad()
def test_the_average_of_a_training_comes_before_its_last_weights(tmp_path):
    network, about = saved(tmp_path, "vit_ti16.flop", **VIT)
    save_weights(tmp_path / "ema.safetensors", network.state_dict(), about)
    save_weights(tmp_path / "weights.safetensors", perturb(network, 1).state_dict(), about)
    expected = perturb(network, 0)(images())
    found = load_network("vit_ti16.flop", tmp_path)
    assert found.weights == "ema.safetensors"
    assert_same(found.model, expected, images())


def test_a_vit_takes_images_of_another_size_and_a_resmlp_does_not(tmp_path):
    for name, options in (("vit_ti16.flop", VIT), ("resmlp_t12", RESMLP)):
        network, about = saved(tmp_path, name, **options)
        save_weights(tmp_path / f"{name}.safetensors", network.state_dict(), about)
    found = load_network("vit_ti16.flop", tmp_path / "vit_ti16.flop.safetensors", image_size=(24, 32))
    assert found.image_size == (24, 32)
    assert found.model(torch.randn(1, 3, 24, 32)).shape == (1, 5)
    with pytest.raises(FlopbenchError, match="images of 16×16 alone"):
        load_network("resmlp_t12", tmp_path / "resmlp_t12.safetensors", image_size=(24, 24))


@pytest.mark.parametrize(
    ("name", "options", "theirs", "arguments"),
    [
        ("vit_ti16", {"depth": 2}, "deit3_small_patch16_224", {"embed_dim": 192, "depth": 2, "num_heads": 3}),
        ("resmlp_t12", {}, "resmlp_12_224", {}),
        ("convnext_t", {"depths": (1, 1, 1, 1)}, "convnext_tiny", {"depths": (1, 1, 1, 1)}),
    ],
)
@torch.no_grad()
def test_timms_weights_of_a_baseline_and_of_timms_own_network(name, options, theirs, arguments, tmp_path):
    network = perturb(timm.create_model(theirs, num_classes=7, **arguments)).eval()
    save_file(network.state_dict(), tmp_path / "timm.safetensors")
    found = load_network(name, tmp_path / "timm.safetensors", options=options)
    assert (found.image_size, found.num_classes) == ((224, 224), 7)
    assert_same(found.model, network(images(224, 1)), images(224, 1))

    own = load_network(f"timm:{theirs}", tmp_path / "timm.safetensors", options=arguments)
    assert own.num_classes == 7
    config = timm.get_pretrained_cfg(theirs)
    assert config
    assert (own.crop, own.mean) == (config.crop_pct, config.mean)
    assert torch.equal(own.model(images(224, 1)), network(images(224, 1)))


def test_wrong_files_are_told_in_a_line(tmp_path):
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "text.safetensors").write_text("no checkpoint")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    torch.save(state_of(released.vit_shapes("X")), tmp_path / "x.pth")
    save_file({"head.weight": torch.ones(7, 3)}, tmp_path / "head.safetensors")
    for name, file, message in [
        ("vit_ti16", "text.pt", "text.pt is no checkpoint"),
        ("vit_ti16", "text.safetensors", "text.safetensors is no file of safetensors"),
        ("vit_ti16", "empty.pt", "empty.pt: a checkpoint is a state dict"),
        ("vit_ti16", "other.pt", "other.pt: the checkpoint is of no network of the papers"),
        ("vit_ti16", ".", "is a folder without weights.safetensors"),
        ("timm:resnet18", "x.pth", "x.pth: the checkpoint does not fit timm:resnet18: missing:"),
        ("timm:resnet18", "head.safetensors", "head.safetensors: the checkpoint does not fit"),
        ("vit_ti16", "missing.pt", "no checkpoint at"),
        ("vit_ti16", "a" * 5000, "no checkpoint at"),
        ("vit_ti16", "missing.safetensors", "missing.safetensors is no file of safetensors"),
    ]:
        with pytest.raises(FlopbenchError) as caught:
            load_network(name, tmp_path / file)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def small():
    """A callable that brings its weights."""
    return perturb(flopbench.create_model("vit_ti16.flop", 16, 5, **VIT))


def counting():
    """A callable with a number that is no list of them: batch normalisation counts batches."""
    return nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_networks_without_a_file_of_weights():
    found = load_network("tests.training.test_networks:small", None, image_size=(16, 16))
    assert (found.weights, found.num_classes, found.mean) == ("its own", None, None)
    assert len(found.digest) == 12
    assert len(load_network("tests.training.test_networks:counting", None).digest) == 12
    for name in ("vit_ti16", "timm:resnet18"):
        with pytest.raises(FlopbenchError, match="has no trained weights: give --weights"):
            load_network(name, None)
    with pytest.raises(FlopbenchError, match="cannot build timm:resnet18"):
        # Of a size that nobody has trained: nothing is downloaded.
        load_network("timm:resnet18", "pretrained", options={"pretrained_cfg": {"file": "/missing.pth"}})
