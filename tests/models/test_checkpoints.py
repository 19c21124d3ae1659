import argparse
import zipfile
from typing import Any

import pytest
import torch

import flopbench
from flopbench.errors import FlopbenchError
from flopbench.models import checkpoints
from flopbench.models.convnext import ConvNeXt
from flopbench.models.factory import perturb
from flopbench.symmetries.base import Gelu
from tests.models import released

VIT = {"num_heads": 2}
JOIN = {"H": "hybrid", "I": "early-invariant"}


def images(size=16, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def state_of(shapes, seed=0):
    state = released.random_state(shapes, seed)
    if "cls_token.1" in state:
        state["cls_token.1"].zero_()
    return state


def assert_same_logits(model, reference, state, x):
    """In fp64 to 1e-10, in fp32 to 1e-4 of their deviation."""
    wide = {key: value.double() for key, value in state.items()}
    expected = reference(wide, x.double())
    assert expected.std() > 0.05
    with torch.no_grad():
        single = model(x).double()
        double = model.double()(x.double())
    assert (single - expected).abs().max() < 1e-4 * expected.std()
    assert (double - expected).abs().max() < 1e-10 * expected.std()


CASES = {
    **{
        f"vit-{version}": (
            released.vit_shapes(version),
            lambda state, x, v=version: released.vit(state, x, v),
            {**VIT, **({"join": JOIN[version]} if version in JOIN else {})},
        )
        for version in "XEHI"
    },
    "vit-E-absolute": (
        released.vit_shapes("E", absolute=True),
        lambda state, x: released.vit(state, x, "E"),
        {**VIT, "head": "absolute"},
    ),
    "resmlp-X": (released.resmlp_shapes("X"), lambda state, x: released.resmlp(state, x, "X"), {}),
    "resmlp-E": (released.resmlp_shapes("E"), lambda state, x: released.resmlp(state, x, "E"), {}),
    "resmlp-E-absolute": (
        released.resmlp_shapes("E", absolute=True),
        lambda state, x: released.resmlp(state, x, "E"),
        {},
    ),
    **{
        f"convnext{kind}-{version}{suffix}": (
            released.convnext_shapes(version, **kwargs, **more),
            lambda state, x, v=version: released.convnext(state, x, v),
            {},
        )
        for kind, kwargs in {
            "": {},
            "-iso": {"widths": (16,), "depths": (2,), "scaled": False},
            "-iso-scaled": {"widths": (16,), "depths": (2,)},
            "-three-stages": {"widths": (8, 12, 16), "depths": (1, 1, 1)},
        }.items()
        for version in "XE"
        for suffix, more in {"": {}, "-meta": {"meta": True}, "-absolute": {"absolute": True}}.items()
        if not (version == "X" and suffix == "-absolute")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_authors_network(case):
    shapes, reference, arguments = CASES[case]
    state = state_of(shapes)
    model = flopbench.load_released_checkpoint(state, **arguments)
    assert not model.training
    assert_same_logits(model, reference, state, images())


def test_the_approximated_gelu_is_that_of_the_equivariant_resmlp_only():
    # Otherwise the comparison above would not tell the two apart.
    state = state_of(released.resmlp_shapes("E"))
    model = flopbench.load_released_checkpoint(state)
    with torch.no_grad():
        approximate = model(images())
        for module in model.modules():
            if isinstance(module, Gelu):
                module.kind = "gelu"
        exact = model(images())
    assert 1e-4 < (approximate - exact).abs().max() < 0.2


@pytest.mark.parametrize("wrap", ["bare", "model", "prefixed", "constants", "namespace"])
def test_files(tmp_path, wrap):
    state = state_of(released.vit_shapes("E"))
    content = {
        "bare": state,
        "model": {"model": state, "epoch": 3},
        "prefixed": {"model": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
        "constants": {
            **state,
            "patch_embed.permutation": torch.arange(16),
            "blocks.0.zero_center": torch.zeros(1),
        },
        "namespace": {"model": state, "args": argparse.Namespace(lr=1e-3)},
    }[wrap]
    path = tmp_path / "network.pth"
    torch.save(content, path)
    model = flopbench.load_released_checkpoint(path, num_heads=2)
    assert_same_logits(model, lambda s, x: released.vit(s, x, "E"), state, images())


def test_the_state_dict_is_left_alone():
    state = state_of(released.vit_shapes("E"))
    before = {key: value.clone() for key, value in state.items()}
    model = flopbench.load_released_checkpoint(state, num_heads=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[key], before[key]) for key in state)


def test_all_that_does_not_fit_is_listed():
    state = state_of(released.vit_shapes("E"))
    del state["blocks.1.attn.proj.linear_sym.bias"], state["norm.scaling.beta"]
    state["head.extra"] = torch.zeros(1)
    state["blocks.2.mlp.fc1.linear_asym.weight"] = torch.zeros(3, 4)
    with pytest.raises(FlopbenchError) as error:
        flopbench.load_released_checkpoint(state, num_heads=2)
    for part in (
        "missing: blocks.1.attn.proj.linear_sym.bias, norm.scaling.beta",
        "unexpected: head.extra",
        "misshapen: blocks.2.mlp.fc1.linear_asym.weight [3, 4] instead of [32, 8]",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("size", [(16, 16), (32, 20), (12, 4), 24])
@pytest.mark.parametrize("version", "XEI")
def test_a_vit_on_images_of_another_size_keeps_its_symmetry(version, size):
    shapes, _, arguments = CASES[f"vit-{version}"]
    model = flopbench.load_released_checkpoint(state_of(shapes), image_size=size, **arguments).double()
    height, width = (size, size) if isinstance(size, int) else size
    x = images(40).double()[:, :, :height, :width]
    with torch.no_grad():
        logits, mirrored = model(x), model(x.flip(3))
    assert logits.std() > 0.05
    assert (mirrored - logits).abs().max() < 1e-12 if version in "EI" else (mirrored != logits).any()


def test_positions_of_a_plain_vit_are_interpolated():
    shapes, reference, arguments = CASES["vit-X"]
    state = state_of(shapes)
    model = flopbench.load_released_checkpoint(state, image_size=24, **arguments)
    planes = state["pos_embed"].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    planes = torch.nn.functional.interpolate(planes, size=(6, 6), mode="bicubic")
    assert_same_logits(model, reference, state | {"pos_embed": planes.flatten(2).mT}, images(24))


def test_the_same_size_changes_nothing():
    shapes, reference, arguments = CASES["vit-E"]
    state = state_of(shapes)
    model = flopbench.load_released_checkpoint(state, image_size=16, **arguments)
    assert_same_logits(model, reference, state, images())


def test_a_convnext_has_images_of_any_size_that_suits_its_strides():
    shapes, reference, _ = CASES["convnext-E"]
    state = state_of(shapes)
    model = flopbench.load_released_checkpoint(state, image_size=24)
    assert_same_logits(model, reference, state, images(24))
    with pytest.raises(FlopbenchError, match=r"positive multiple of 8 pixels, .* got 20"):
        flopbench.load_released_checkpoint(state, image_size=20)


def test_a_resmlp_has_images_of_one_size_only():
    state = state_of(released.resmlp_shapes("E"))
    with pytest.raises(FlopbenchError, match="it takes images of 16×16 alone"):
        flopbench.load_released_checkpoint(state, image_size=24)
    flopbench.load_released_checkpoint(state, image_size=(16, 16))


@pytest.mark.parametrize("size", [0, -4, 6, True, 10**30, 4.0, "16", (16,), (16, 16, 16), (16, 0), [16, 16]])
def test_impossible_sizes_of_images_are_refused(size):
    with pytest.raises(FlopbenchError, match=r"image_size|for images of 10+×10+: ") as error:
        flopbench.load_released_checkpoint(state_of(released.vit_shapes("X")), num_heads=2, image_size=size)
    assert "\n" not in str(error.value)


def without(key):
    state = state_of(released.vit_shapes("E"))
    del state[key]
    return state


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        (state_of(released.vit_shapes("H")), VIT, "join='hybrid' or join='early-invariant'"),
        (state_of(released.vit_shapes("E")), {**VIT, "join": "hybrid"}, "join='hybrid' is for"),
        (state_of(released.vit_shapes("E")), {}, "give num_heads"),
        (state_of(released.vit_shapes("E")), {"num_heads": 3}, "does not split into 3 heads"),
        (state_of(released.vit_shapes("E")), {**VIT, "head": "absolute"}, "is 'invariant', not 'absolute'"),
        (released.random_state(released.vit_shapes("E")), VIT, "cls_token.1 must be zero"),
        (without("head.weight"), VIT, "lacks head.weight"),
        (state_of(released.vit_shapes("E") | {"pos_embed.0": (1, 7, 8)}), VIT, "no square grid"),
        ({"layer1.0.conv1.weight": torch.zeros(1)}, {}, "of no network of the papers"),
        ({"model": {"epoch": 1}}, {}, "this is neither"),
        ("nowhere/network.pth", {}, "no checkpoint at nowhere/network.pth"),
    ],
)
def test_mistakes_are_told_in_one_line(source, arguments, message):
    with pytest.raises(FlopbenchError, match=message) as error:
        flopbench.load_released_checkpoint(source, **arguments)
    assert "\n" not in str(error.value)


def with_entry(key, value):
    return state_of(released.vit_shapes("E")) | {key: value}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("head.weight", torch.eye(3).to_sparse(), "head.weight .* is sparse_coo"),
        ("head.weight", torch.zeros(5, 8, dtype=torch.complex64), "head.weight .* complex64: give dense"),
        ("head.weight", torch.zeros(5, 8, dtype=torch.int8), "head.weight .* int8: give dense"),
        ("head.weight", torch.zeros(5, 8, device="meta"), "head.weight .* is on the meta device"),
        ("head.weight", torch.zeros(0, 8), r"head.weight .* is empty, \[0, 8\]"),
        (
            "head.weight",
            torch.zeros(1).expand(10**6, 10**7),
            "claims more values than it holds",
        ),
        ("patch_embed.proj_sym.weight", torch.zeros(8, 3, 0, 0), "proj_sym.weight .* is empty"),
        ("patch_embed.proj_sym.weight", torch.zeros(()), "make no network"),
        (
            "blocks.99999.norm1.scaling.alpha_sym",
            torch.zeros(1),
            "numbered from 0 without a gap",
        ),
        (f"blocks.{'9' * 5000}.x", torch.zeros(1), "numbered from 0 without a gap"),
        (5, torch.zeros(1), "have printable names, got 5"),
        ("a\nb", torch.zeros(1), r"printable names, got 'a\\nb'"),
        ("x" * 5000, torch.zeros(1), "unexpected: x{100}$"),
    ],
)
def test_an_entry_that_holds_no_weights_is_named(key, value, message):
    with pytest.raises(FlopbenchError, match=message) as error:
        flopbench.load_released_checkpoint(with_entry(key, value), num_heads=2)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_weights_are_refused():
    value = torch.quantize_per_tensor(torch.zeros(5, 8), 0.1, 0, torch.qint8)
    with pytest.raises(FlopbenchError, match=r"head\.weight in the checkpoint is quantised"):
        flopbench.load_released_checkpoint(with_entry("head.weight", value), num_heads=2)


@pytest.mark.parametrize("num_heads", [0, -1, "2", 2.0, 10**30])
def test_impossible_heads_are_refused(num_heads):
    with pytest.raises(FlopbenchError, match=r"num_heads must be|does not split into"):
        flopbench.load_released_checkpoint(state_of(released.vit_shapes("E")), num_heads=num_heads)


def test_nothing_is_allocated_before_all_entries_fit(monkeypatch):
    def allocate(*_, **__):
        raise AssertionError("allocated")

    monkeypatch.setattr(torch.nn.Module, "to_empty", allocate)
    with pytest.raises(FlopbenchError, match="missing"):
        flopbench.load_released_checkpoint(without("norm.scaling.beta"), num_heads=2)


def claiming(path, **options):
    """A file that says of 70 000 values that they are a million million."""
    torch.save({"head.weight": torch.zeros(70_000)}, path, **options)
    told, claimed = b"J" + (70_000).to_bytes(4, "little"), b"\x8a\x06" + (10**12).to_bytes(6, "little")
    if not zipfile.is_zipfile(path):
        path.write_bytes(path.read_bytes().replace(told, claimed))
        return
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(told, claimed) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_claims_terabytes_is_refused(tmp_path, zipped):
    path = tmp_path / "vast.pth"
    claiming(path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FlopbenchError, match=r"vast\.pth is no checkpoint") as error:
        flopbench.load_released_checkpoint(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "."])
def test_a_path_that_is_no_file(name):
    with pytest.raises(FlopbenchError, match="no checkpoint at"):
        flopbench.load_released_checkpoint(name)


class Stranger:
    pass


def test_a_file_of_arbitrary_objects_is_not_executed(tmp_path):
    path = tmp_path / "stranger.pth"
    torch.save({"model": {"weight": Stranger()}}, path)
    with pytest.raises(FlopbenchError, match=r"stranger\.pth is no checkpoint of tensors alone"):
        flopbench.load_released_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(FlopbenchError, match=r"stranger\.pth is no checkpoint of tensors alone"):
        flopbench.load_released_checkpoint(path)


@pytest.mark.parametrize(
    ("ours", "options", "theirs", "more"),
    [
        ("vit_ti16", {"depth": 2}, "deit3_small_patch16_224", {"embed_dim": 192, "depth": 2, "num_heads": 3}),
        ("resmlp_t12", {}, "resmlp_12_224", {}),
        (
            "convnext_t",
            {"depths": (1, 1, 2, 1), "widths": (8, 16, 24, 32)},
            "convnext_tiny",
            {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
        ),
    ],
)
def test_a_baseline_with_timms_weights_gives_timms_logits(ours, options, theirs, more):
    pytest.importorskip("timm", exc_type=ImportError)
    network: Any = flopbench.create_model(f"timm:{theirs}", image_size=64, num_classes=7, **more)
    perturb(network.eval())
    model: Any = flopbench.create_model(ours, image_size=64, num_classes=7, **options).eval()
    checkpoints.load_timm_state_dict(model, network.state_dict())
    with torch.no_grad():
        got, expected = model(images(64)), network(images(64))
        norm = ours != "convnext_t"
        last, found = model.forward_intermediates(images(64), [0, -1], norm=norm)
        _, wanted = network.forward_intermediates(images(64), [0, -1], norm=norm)
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    for mine, its in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.permute(0, 3, 1, 2), its, rtol=1e-4, atol=1e-4)
    assert torch.equal(last, found[-1])


@pytest.mark.parametrize("theirs", ["vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"])
@torch.no_grad()
def test_a_rotary_baseline_with_timms_weights_gives_timms_logits(theirs):
    """At sizes whose sides are powers of two, which timm's coordinates in single precision have exactly."""
    pytest.importorskip("timm", exc_type=ImportError)
    sizes = {"depth": 2, "num_classes": 7}
    more = {"embed_dim": 64, "num_heads": 2, "global_pool": "token"}
    network = perturb(flopbench.create_model(f"timm:{theirs}", image_size=64, **sizes, **more)).eval()
    options = {"width": 64, "heads": 2, "positions": "rope", "registers": 4, "eps": 1e-5}
    model = flopbench.create_model("vit_s16", image_size=64, **sizes, **options).eval()
    checkpoints.load_timm_state_dict(model, network.state_dict())
    for size in ((64, 64), (48, 80)):
        pixels = torch.randn(2, 3, *size)
        torch.testing.assert_close(model(pixels), network(pixels), rtol=1e-5, atol=1e-5)
    model, network = model.double(), network.double()
    for size in ((64, 64), (32, 128)):
        pixels = torch.randn(2, 3, *size, dtype=torch.float64)
        expected = network(pixels)
        assert expected.std() > 0.1
        torch.testing.assert_close(model(pixels), expected, rtol=1e-10, atol=1e-10)


def test_timms_weights_fit_baselines_only():
    model = ConvNeXt(
        image_size=(16, 16), num_classes=3, patch_size=4, widths=(8,), depths=(1,), symmetry="flop"
    )
    with pytest.raises(FlopbenchError, match=r"missing: .*unexpected: conv1\.weight"):
        checkpoints.load_timm_state_dict(model, {"conv1.weight": torch.zeros(1)})
