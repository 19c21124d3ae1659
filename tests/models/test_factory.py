import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

import flopbench
from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.models import SPECS, label_of, list_models, parse_name
from flopbench.models.factory import num_parameters, perturb
from flopbench.pairs import Pair


@pytest.mark.parametrize("name", ["vit_ti16.flop", "resmlp_t12", "convnext_t.hybrid", "convnext_iso_s.flop"])
def test_builds_by_name_for_any_image(name):
    with torch.device("meta"):
        model = flopbench.create_model(name, image_size=(64, 96), num_classes=7)
        assert model(torch.empty(2, 3, 64, 96)).shape == (2, 7)
    assert model.training


def test_options_reach_the_class():
    with torch.device("meta"):
        model: Any = flopbench.create_model(
            "vit_ti16.flop", head="absolute", attention="unfused", drop_path=0.2
        )
    assert model.head.in_features == 192
    assert not model.blocks[0].attn.fused
    assert model.blocks[0].residual1.drop_path.probability == pytest.approx(0.2)


def test_the_grid_is_that_of_the_patches_that_are_asked_for():
    with torch.device("meta"):
        model = flopbench.create_model("vit_ti16.octic", image_size=40, num_classes=7, patch_size=4)
        assert model(torch.empty(2, 3, 40, 40)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_b17", {}, r"unknown model 'vit_b17'; did you mean .*vit_b16"),
        ("vit_b16.flip", {}, r"unknown version of vit_b16 'flip'; did you mean flop\?"),
        (
            "convnext_t.early_invariant",
            {},
            r"unknown version of convnext_t 'early_invariant'; known: flop, hybrid, plain",
        ),
        (
            "vit_b16",
            {"image_size": 225},
            r"image height 225 does not suit vit_b16: .* multiple of 16, e\.g\. 224",
        ),
        ("convnext_t", {"image_size": (224, 80)}, r"image width 80 .* multiple of 32"),
        (
            "vit_b16.octic",
            {"image_size": (224, 192)},
            r"image size 224×192 does not suit vit_b16\.octic: octic wants a square .* e\.g\. 192×192",
        ),
        (
            "vit_h14.octic_hybrid",
            {"image_size": 238},
            r"octic wants a square with an even number of cells of 14 pixels each way, e\.g\. 224×224",
        ),
        (
            "resmlp_s24.octic",
            {},
            r"there is no resmlp_s24\.octic: the symmetry octic has layers for ViT and single layers, "
            "none for ResMLP",
        ),
        ("vit_b16", {"colour": "red"}, r"unknown option of vit_b16 .colour"),
        (
            "vit_ti16.flop",
            {"width": 190},
            r"cannot build vit_ti16\.flop: width 190 does not split into 3 heads",
        ),
        (
            "vit_ti16.flop",
            {"width": 189},
            r"cannot build vit_ti16\.flop: flop needs a positive multiple of 2",
        ),
        ("vit_b16.octic", {"image_size": 50}, r"image height 50 .* multiple of 32, e\.g\. 64"),
        ("vit_b16.octic", {"image_size": 224, "patch_size": 32}, r"cells of 32 pixels each way, e\.g\. "),
        ("vit_b16", {"patch_size": 0}, r"patch_size of vit_b16 must be a positive number of pixels, got 0"),
        (
            "vit_b16",
            {"image_size": "224"},
            r"image_size must be pixels, or two of \(height, width\), got '224'",
        ),
        ("vit_b16", {"image_size": (3, 224, 224)}, r"image_size must be pixels, or two .* \(3, 224, 224\)"),
        ("vit_ti16.octic", {"head": "invariants"}, r"unknown head 'invariants'; did you mean invariant\?"),
        ("vit_ti16", {"attention": "flash"}, r"unknown attention 'flash'; known: fused, unfused"),
        ("vit_ti16.octic", {"impl": "fast"}, r"unknown impl 'fast'"),
        ("vit_ti16.octic", {"heads": 0}, r"width 192 does not split into 0 heads"),
        ("vit_ti16.octic", {"depth": 0}, r"depth must be at least 1 block, got 0"),
        ("resmlp_t12.flop", {"image_size": (224, 16)}, r"two columns of tokens or more, got 14×1"),
        ("no.such.module:thing", {}, r"cannot import no\.such\.module:thing"),
        ("torch.nn:Nothing", {}, r"module torch\.nn has no 'Nothing'"),
        ("torch:zeros", {"size": (2,)}, r"torch:zeros returned Tensor, not a torch\.nn\.Module"),
        ("torch:pi", {}, r"torch:pi is of type float: name a class or function that returns a network"),
        (":thing", {}, r"not of the form timm:NAME or package\.module:callable"),
    ],
)
def test_mistakes_are_told_in_one_line(name, options, message):
    with pytest.raises(FlopbenchError, match=message) as error:
        flopbench.create_model(name, **options)
    assert "\n" not in str(error.value)


def test_builds_what_others_wrote(monkeypatch):
    module: Any = types.ModuleType("somewhere")
    module.network = lambda width=3: nn.Sequential(nn.Flatten(), nn.Linear(12, width))
    monkeypatch.setitem(sys.modules, "somewhere", module)
    assert flopbench.create_model("somewhere:network", width=4)(torch.zeros(1, 3, 2, 2)).shape == (1, 4)


LOCAL = """
import sys
from torch import nn

class Zoo:
    @staticmethod
    def tiny():
        return nn.Linear(2, 3)

def key():
    raise KeyError("width")

def leaves():
    sys.exit(7)

not_callable = 3
"""


@pytest.fixture
def current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    written = {
        "local_zoo": LOCAL,
        "local_typo": "def net(:",
        "local_name": "net = nowhere",
        "local_needs": "import absent",
    }
    for name, source in written.items():
        (tmp_path / f"{name}.py").write_text(source)
    yield
    for name in written:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("current_folder")
def test_a_module_in_the_current_folder_is_found():
    assert isinstance(flopbench.create_model("local_zoo:Zoo.tiny"), nn.Linear)


@pytest.mark.usefixtures("current_folder")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local_zoo:key", r"cannot build local_zoo:key: KeyError: 'width' \(local_zoo\.py:11 in key\)$"),
        ("local_zoo:leaves", r"cannot build local_zoo:leaves: SystemExit: 7 \(local_zoo\.py:14 in leaves\)$"),
        ("local_zoo:not_callable", r"local_zoo:not_callable is of type int: name a class or function"),
        ("local_zoo:nothing", r"module local_zoo has no 'nothing'"),
        ("local_typo:net", r"cannot import local_typo:net: SyntaxError: .* \(local_typo\.py:1\)$"),
        ("local_name:net", r"cannot import local_name:net: NameError: .* \(local_name\.py:1 in <module>\)$"),
        (
            "local_needs:net",
            r"cannot import local_needs:net: ModuleNotFoundError: .*'absent' \(local_needs\.py:1",
        ),
        (
            "local_absent.nets:net",
            r"no module 'local_absent' in the current folder.* where local_absent\.py lies$",
        ),
    ],
)
def test_mistakes_in_somebody_elses_module_are_one_line_with_theirs(name, message):
    with pytest.raises(FlopbenchError, match=message) as error:
        flopbench.create_model(name)
    assert "\n" not in str(error.value)


def test_timm_by_name():
    pytest.importorskip("timm", exc_type=ImportError)
    model = flopbench.create_model(
        "timm:deit3_small_patch16_224", image_size=(32, 64), num_classes=7, depth=1
    )
    assert model(torch.zeros(1, 3, 32, 64)).shape == (1, 7)
    model = flopbench.create_model("timm:convnext_atto", image_size=64, num_classes=7)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    with pytest.raises(FlopbenchError, match=r"unknown timm model .*; did you mean deit3_small"):
        flopbench.create_model("timm:deit3_small_patch16")


def test_timm_missing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(FlopbenchError, match=r"pip install 'flopbench\[timm\]'"):
        flopbench.create_model("timm:deit3_small_patch16_224")


def test_names_labels_and_versions():
    assert list_models()[:4] == ["vit_ti16", "vit_ti16.flop", "vit_ti16.hybrid", "vit_ti16.early_invariant"]
    assert all(parse_name(name).raw == name for name in list_models())
    labels = [label_of(name) for name in ("vit_h14.hybrid", "resmlp_b24.flop", "convnext_iso_l", "timm:vit")]
    assert labels == ["H(ViT-H/14)", "E(ResMLP-B24)", "ConvNeXt-iso-L", "timm:vit"]
    octic = [label_of(name) for name in SPECS["vit_b16"].names if "octic" in name]
    assert octic == ["D8(ViT-B/16)", "H8(ViT-B/16)", "I8(ViT-B/16)", "TTA8(ViT-B/16)"]
    assert [name for name in list_models() if name.startswith("convnext_t")] == [
        "convnext_t",
        "convnext_t.flop",
        "convnext_t.hybrid",
        "convnext_t.tta",
    ]
    assert {name for name, spec in SPECS.items() if f"{name}.early_invariant" not in spec.names} == {
        name for name in SPECS if name.startswith("convnext")
    }
    invariant = [name for name in list_models() if parse_name(name).invariant]
    assert all(name.endswith((".flop", "early_invariant", ".octic", "tta")) for name in invariant)
    assert parse_name("vit_ti16.tta").label(96, 4) == "TTA(ViT-96×4/16)"


@pytest.mark.parametrize(
    ("name", "width", "depth", "options", "label"),
    [
        ("vit_b16.flop", None, None, {}, "E(ViT-B/16)"),
        ("vit_s16.flop", 768, 4, {"width": 768, "depth": 4, "heads": 12}, "E(ViT-768×4/16)"),
        ("vit_s16", 48, None, {"width": 48, "depth": 12, "heads": 1}, "ViT-48/16"),
        ("vit_h14.hybrid", None, 2, {"width": 1280, "depth": 2}, "H(ViT-1280×2/14)"),
        ("resmlp_s24", 96, None, {"width": 96, "depth": 24}, "ResMLP-96"),
        ("convnext_iso_s", 96, 2, {"widths": (96,), "depths": (2,)}, "ConvNeXt-iso-96×2"),
    ],
)
def test_a_network_of_another_width_or_depth(name, width, depth, options, label):
    parsed = parse_name(name)
    assert parsed.sized(width, depth) == options
    assert parsed.label(width, depth) == label
    with torch.device("meta"):
        assert flopbench.create_model(name, **options)


def test_both_networks_of_a_pair_have_heads_that_its_symmetries_divide():
    for candidate, heads in {"vit_s16.flop": 2, "vit_s16.octic": 1}.items():
        pair = Pair.of(candidate)
        cell = Cell(
            pair=pair, device="cpu", batch_size=1, pass_="forward", dtype="fp32", mode="eager", width=88
        )
        assert [cell.options(name)["heads"] for name in (pair.baseline, pair.candidate)] == [heads, heads]


@pytest.mark.parametrize("name", ["convnext_t.flop", "gelu_768", "timm:resnet18"])
def test_a_width_that_is_not_free_is_told(name):
    with pytest.raises(FlopbenchError, match=f"the width and depth of {name} are not free"):
        parse_name(name).sized(64, None)


def test_parameters_are_the_trainable_ones():
    model = nn.Linear(3, 4)
    model.bias.requires_grad_(False)
    assert num_parameters(model) == 12


def test_perturbation_tells_gains_from_biases_and_weights_in_foreign_networks():
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.pos_embed = nn.Parameter(torch.zeros(1, 400, 50))
            self.alpha = nn.Parameter(torch.ones(1, 1, 5000))
            self.beta = nn.Parameter(torch.zeros(1, 1, 5000))
            self.ls1 = nn.Parameter(torch.zeros(5000))
            self.norm = nn.LayerNorm(5000)
            self.conv = nn.Conv2d(16, 200, 5)

    model = perturb(Foreign())
    sizes = {name: (p.mean().item(), p.std().item()) for name, p in model.named_parameters()}
    expected = {
        "pos_embed": (0, 0.2),
        "alpha": (1, 0.2),
        "beta": (0, 0.2),
        "ls1": (0.3, 0.06),
        "norm.weight": (1, 0.2),
        "norm.bias": (0, 0.2),
        "conv.weight": (0, 0.05),
    }
    for name, (mean, deviation) in expected.items():
        assert sizes[name] == (pytest.approx(mean, abs=0.02), pytest.approx(deviation, rel=0.1)), name
