"""Files of the authors' octic networks: the logits that they give, and what is said of others."""

import argparse
from dataclasses import replace

import pytest
import torch

import flopbench
from flopbench.errors import FlopbenchError
from tests.models import released_octic
from tests.models.released_octic import CASES

H8, I8, D8 = CASES["H8"], CASES["I8"], CASES["D8"]


def load(case, state=None, **arguments):
    state = released_octic.state(case) if state is None else state
    return flopbench.load_released_checkpoint(state, **{"num_heads": case.heads, **arguments})


def assert_golden_logits(model, case):
    """The stored ones in fp64 to their last digit, in fp32 to 1e-5 of their deviation."""
    expected = torch.tensor(case.logits, dtype=torch.float64)
    images = released_octic.images(case)
    with torch.no_grad():
        single = model(images).double()
        double = model.double()(images.double())
    assert (single - expected).abs().max() < 1e-5 * expected.std()
    assert (double - expected).abs().max() < 1e-10


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.depth < 12])
def test_logits_equal_the_authors_network(name):
    model = load(CASES[name])
    assert not model.training
    assert_golden_logits(model, CASES[name])


def test_a_file_as_training_wrote_it(tmp_path):
    state = released_octic.state(I8)
    content = {
        "model": {f"_orig_mod.{key}": value for key, value in state.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]},
        "lr_scheduler": {"base_values": [1e-3]},
        "epoch": 399,
        "model_ema": {"cls_token.0": torch.zeros(1)},
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="invariant_early_deit", lr=3e-3),
    }
    torch.save(content, tmp_path / "network.pth")
    assert_golden_logits(load(I8, tmp_path / "network.pth"), I8)


def test_the_size_tells_the_heads():
    case = CASES["I8 Ti/16"]
    assert_golden_logits(load(case, num_heads=None), case)


def test_how_halves_are_joined_may_be_told_but_not_otherwise_than_the_file_does():
    assert_golden_logits(load(H8, join="hybrid"), H8)
    assert_golden_logits(load(I8, join="early-invariant"), I8)
    with pytest.raises(FlopbenchError, match=r"are joined 'early-invariant', not 'hybrid'$"):
        load(I8, join="hybrid")
    with pytest.raises(FlopbenchError, match="join='hybrid' is for"):
        load(D8, join="hybrid")


def changed(case, **entries):
    """The state dict with other entries: None for one that is missing, a shape for one of zeros."""
    state = released_octic.state(case)
    for key, value in entries.items():
        del state[key]
        if value is not None:
            state[key] = torch.zeros(value) if isinstance(value, tuple) else value
    return state


@pytest.mark.parametrize("token", [1, 2, 3, 4])
def test_a_class_token_that_varies_is_refused(token):
    key = f"cls_token.{token}"
    value = torch.zeros_like(released_octic.state(H8)[key])
    value.view(-1)[-1] = 1e-20
    with pytest.raises(FlopbenchError, match=rf"{key} must be zero"):
        load(H8, changed(H8, **{key: value}))


WEIGHT = "invariant_proj.weight"
MISTAKES = {
    "missing": (
        I8,
        {"blocks.1.attn.qkv.lin_E.weight": None, "blocks.0.gamma_2.alpha_B2": None},
        r"missing: blocks\.0\.gamma_2\.alpha_B2, blocks\.1\.attn\.qkv\.lin_E\.weight$",
    ),
    "no positions": (I8, {"pos_embed.5": None}, r"missing: pos_embed\.5$"),
    "shape": (
        I8,
        {"patch_embed.lift8.conv_E_right.weight": (4, 3, 3, 2)},
        r"misshapen: patch_embed\.lift8\.conv_E_right\.weight \[4, 3, 3, 2\] instead of \[4, 3, 3, 3\]$",
    ),
    "invariants": (I8, {WEIGHT: (32, 7)}, "has 7 columns: those of no known invariants; .*power_spectrum 24"),
    "max filtering": (
        I8,
        {WEIGHT: (32, 64)},
        "has 64 columns: those of max filtering, which flopbench does not",
    ),
    "canonisation": (
        I8,
        {WEIGHT: (32, 32)},
        "has 32 columns: those of canonisation, which flopbench does not",
    ),
    "nothing at the end": (D8, {WEIGHT: None, "invariant_proj.bias": None}, f"lacks {WEIGHT}"),
    "oblong": (H8, {"pos_embed.0": (2, 3, 4)}, "pos_embed.0 has 2×3 positions: no quarter of a square grid"),
    "a row": (H8, {"pos_embed.0": (4,)}, "make no network"),
    "blocks": (
        H8,
        {"blocks.1.norm1.scaling.alpha_A1": None},
        "1 of 4 blocks are equivariant, neither all nor half",
    ),
    "kernels": (H8, {"patch_embed.lift8.conv_A1.weight": None}, r"lacks patch_embed\.proj\.weight"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_told_in_one_line(mistake):
    case, entries, message = MISTAKES[mistake]
    with pytest.raises(FlopbenchError, match=message) as error:
        load(case, changed(case, **entries))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("wrap", [lambda state: {"teacher": state}, lambda state: state])
def test_files_of_dinov2_are_told(wrap):
    state = {"backbone.cls_token.0": torch.zeros(1, 1, 4)}
    state |= {f"mask_token.{part}": torch.zeros(1, 4) for part in range(8)}
    with pytest.raises(FlopbenchError, match="DINOv2, a backbone without a classifier"):
        flopbench.load_released_checkpoint(wrap(state))


def turned(images):
    return torch.rot90(images, 1, (2, 3))


@pytest.mark.parametrize("side", [12, 36, 48])
@pytest.mark.parametrize("name", ["I8 polynomial", "D8", "H8"])
def test_on_images_of_another_size_the_symmetry_is_kept(name, side):
    model = load(CASES[name], image_size=side).double()
    images = released_octic.images(replace(CASES[name], image_size=side)).double()
    with torch.no_grad():
        logits = model(images)
        errors = [(model(moved) - logits).abs().max() for moved in (images.flip(3), turned(images))]
    assert logits.std() > 0.1
    if name == "H8":
        assert min(errors) > 1e-2
    else:
        assert max(errors) < 1e-12
        # Not for want of a dependence on where things are.
        assert (model(images.roll(6, 3)) - logits).abs().max() > 1e-3


def test_the_same_size_changes_nothing():
    one, two = load(I8), load(I8, image_size=(I8.image_size, I8.image_size))
    assert one.state_dict().keys() == two.state_dict().keys()
    assert all(torch.equal(two.state_dict()[key], value) for key, value in one.state_dict().items())


@pytest.mark.parametrize(
    ("size", "message"), [((24, 36), "octic"), (18, "octic"), (30, "octic"), (25, "multiple of 6")]
)
def test_sizes_that_an_octic_network_cannot_have(size, message):
    with pytest.raises(FlopbenchError, match=message) as error:
        load(I8, image_size=size)
    assert "\n" not in str(error.value)
