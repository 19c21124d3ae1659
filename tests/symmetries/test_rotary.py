"""Rotary positions: scores that a group leaves as they are, for images of any size."""

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._inductor import metrics

import flopbench
from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.flops.audit import audit
from flopbench.inputs import Inputs
from flopbench.models.factory import perturb
from flopbench.models.vit import VisionTransformer
from flopbench.pairs import Pair
from flopbench.symmetries import FLOP, OCTIC, PLAIN, parts_of
from flopbench.symmetries.generators import elements
from flopbench.symmetries.rotary import Rotary, Rotate

SYMMETRIES = {"flop": FLOP, "octic": OCTIC}


def build(symmetry: str = "flop", size: tuple[int, int] = (8, 12), **options: Any) -> Any:
    """Three blocks of two heads of 8 channels, a register beside the class token."""
    sizes = {"patch_size": 4, "width": 16, "depth": 3, "heads": 2, "num_classes": 5}
    options = {"positions": "rope", "registers": 1, **sizes, **options}
    return perturb(VisionTransformer(symmetry=symmetry, image_size=size, **options)).eval()


@pytest.mark.parametrize(
    ("name", "size"), [("flop", (8, 12)), ("flop", (20, 4)), ("octic", (12, 12)), ("octic", (16, 16))]
)
@torch.no_grad()
def test_every_element_of_the_group_leaves_the_logits_as_they_are(name, size):
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    model, plain = build(name).double(), build("plain").double()
    for element, _ in elements(SYMMETRIES[name].generators)[1:]:
        moved = images
        for generator in element:
            moved = generator.images(moved)
        torch.testing.assert_close(model(moved), model(images), rtol=0, atol=1e-14)
        assert (plain(moved) - plain(images)).abs().max() > 0.01


@torch.no_grad()
def test_scores_go_by_distances_and_by_both_axes():
    """Two tokens of the same content see each other as two others do at the same distance, and only those."""
    for symmetry in (PLAIN, FLOP, OCTIC):
        channels = 8
        x = symmetry.feature_of(torch.zeros(1, *shape) for shape in symmetry.shapes((4, 6), channels))
        tables = Rotary(symmetry, channels, (4, 6), 0).double()(x)
        content = [torch.randn(1, 1, shape[-1] * 3).expand(1, 24, -1).double() for shape in
                   symmetry.shapes((24,), channels)]  # fmt: skip
        qkv = parts_of(Rotate(symmetry, channels, 1)(symmetry.feature_of(content), tables))
        q, k, v = torch.cat([part.unflatten(-1, (3, -1)) for part in qkv], dim=-1).double().unbind(2)
        scores = (q @ k.mT)[0].reshape(4, 6, 4, 6)
        torch.testing.assert_close(scores[0, 0, 1, 2], scores[2, 3, 3, 5])
        assert (scores[0, 0, 0, 1] - scores[0, 0, 0, 2]).abs() > 1e-3
        assert (scores[0, 0, 1, 0] - scores[0, 0, 2, 0]).abs() > 1e-3
        assert torch.equal(v, v[:, :1].expand_as(v))


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "flop", "hybrid", "octic"])
def test_a_network_takes_images_of_any_size(name):
    """It is the one that was built for that size."""
    model, other = build(name, (8, 8)), build(name, (16, 16))
    images = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(model(images), other(images))
    with pytest.raises(FlopbenchError, match=r"images of 16×18 pixels do not split into patches of 4"):
        model(torch.randn(1, 3, 16, 18))
    features = build(name, (8, 8), task="features")(images)
    assert {part.shape[:3] for part in parts_of(features)} == {(1, 4, 4)}


def test_learnt_positions_are_for_images_of_one_size():
    model = build(positions="learnt")
    with pytest.raises(FlopbenchError, match=r"images of 8×16 pixels: .* learnt positions for 8×12 alone"):
        model(torch.randn(1, 3, 8, 16))


def test_tables_are_those_of_the_dtype_and_device_that_the_network_is_brought_to():
    with torch.device("meta"):
        empty = Rotary(FLOP, 8, (2, 3), 1)
    x = FLOP.feature_of([torch.zeros(1, 2, 3, 4, dtype=torch.float64)] * 2)
    tables = empty.to_empty(device="cpu").double()(x)
    for kept, computed in zip(
        tables, Rotate(FLOP, 8, 1).rotations.tables(8, (2, 3), 1, *_double()), strict=True
    ):
        assert torch.equal(kept, computed)
    # A register does not turn.
    assert torch.equal(tables[0][0], torch.ones(3, 1, 4))
    assert not tables[1][0].any()
    assert not empty.state_dict()


def _double() -> tuple[torch.dtype, torch.device]:
    return torch.float64, torch.device("cpu")


def test_what_has_no_rotary_positions_says_so(monkeypatch):
    with pytest.raises(FlopbenchError, match="early_invariant: no rotary positions: what has become invar"):
        flopbench.create_model("vit_ti16.early_invariant", 32, positions="rope")
    with pytest.raises(FlopbenchError, match="octic_early_invariant has no rotary positions"):
        cell("vit_ti16.octic_early_invariant", positions="rope").check()
    with pytest.raises(ValueError, match="of flop need a multiple of 8 channels per head, got 4"):
        build(heads=4)
    monkeypatch.setattr(type(FLOP), "rotations", None)
    with pytest.raises(ValueError, match="the symmetry flop has no rotary positions"):
        build()


def test_registers_are_invariant_tokens():
    tokens = build(registers=2).cls_token(FLOP.feature_of([torch.ones(1, 3, 8)] * 2))
    assert tokens.s.shape == tokens.a.shape == (1, 6, 8)
    assert tokens.s[:, :3].all()
    assert not tokens.a[:, :3].any()
    assert tokens.a[:, 3:].all()
    assert "cls_token.weight_s" in build().no_weight_decay()


@pytest.mark.parametrize("name", ["plain", "flop", "octic", "hybrid"])
def test_the_three_counts_agree(name):
    images = torch.zeros(64, 3, 8, 8, device="meta")
    result = audit(build(name, (8, 8)).to("meta"), name, Inputs(images))
    assert result.disagreement == 0
    assert not result.notes
    assert {count.coverage for count in result.forward.values()} == {1.0}
    assert result.ran_elementwise == pytest.approx(result.elementwise, rel=0.01)


def test_rotations_cost_the_same_with_mirroring_and_without():
    plain, flop, octic = (
        Rotate(symmetry, 8, 1).rotations.operations(120) for symmetry in (PLAIN, FLOP, OCTIC)
    )
    assert (plain, flop, octic) == (360, 360, 480)


def test_gradients_through_checkpoints_are_the_same():
    model, images = build().train(), torch.randn(2, 3, 8, 12)
    model(images).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing()
    model(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_all_blocks_are_compiled_as_one_and_the_network_as_one_graph():
    torch._dynamo.reset()
    model, images = build(), torch.randn(1, 3, 8, 12)
    with torch.no_grad():
        expected = model(images)
        whole = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(whole(images), expected)
        torch._dynamo.reset()
        counter = CompileCounter()
        for block in model.blocks:
            block.compile(backend=counter, fullgraph=True)
        torch.testing.assert_close(model(images), expected)
    assert counter.frame_count == 1


def cell(candidate: str, **axes: Any) -> Cell:
    pair = Pair(baseline=candidate.partition(".")[0], candidate=candidate)
    usual = {"device": "cpu", "batch_size": 1, "pass": "forward", "dtype": "fp32", "mode": "eager"}
    return Cell.model_validate({"pair": pair, **usual, **axes})


def test_positions_are_an_axis_of_cells():
    rope, usual = (cell("vit_s16.flop", positions=kind, width=96) for kind in ("rope", "learnt"))
    assert "rope" in rope.id.split("/")
    assert "rotary positions" in rope.words
    assert "learnt" not in usual.id
    assert "positions" not in usual.options("vit_s16")
    options = rope.options("vit_s16")
    assert (options["positions"], options["width"] // options["heads"] % 8) == ("rope", 0)
    assert rope.comes_to != usual.comes_to
    assert cell("resmlp_s24.flop", positions="rope").comes_to == cell("resmlp_s24.flop").comes_to


@pytest.mark.parametrize("symmetry", [PLAIN, FLOP, OCTIC], ids=["plain", "flop", "octic"])
def test_values_do_not_turn_and_a_compiler_writes_each_part_once(symmetry):
    shapes = symmetry.shapes((6,), 16)
    qkv = symmetry.feature_of(torch.randn(1, 6, 3 * shape[-1]) for shape in shapes)
    grid = symmetry.feature_of(torch.zeros(1, *shape) for shape in symmetry.shapes((2, 3), 16))
    rotate, tables = Rotate(symmetry, 8, 2), Rotary(symmetry, 8, (2, 3), 0)(grid)
    turned = parts_of(rotate(qkv, tables))
    for part, given in zip(turned, parts_of(qkv), strict=True):
        queries, keys, values = (part - given).chunk(3, -1)
        assert min(queries.abs().max(), keys.abs().max()) > 0.1
        assert values.abs().max() < 1e-6
    metrics.reset()
    torch._dynamo.reset()
    compiled = parts_of(torch.compile(rotate)(qkv, tables))
    torch.testing.assert_close(list(compiled), list(turned))
    # On a CPU one is two: of vectors, and of what is left over.
    assert metrics.generated_kernel_count <= 2 * len(turned)
