"""Embeddings of positions of every symmetry: folded, unfolded and resized."""

import pytest
import torch
import torch.nn.functional as F

from flopbench.symmetries import FLOP, OCTIC, PLAIN, each, parts_of

SYMMETRIES = {"plain": PLAIN, "flop": FLOP, "octic": OCTIC}
WIDTH = 16
GRIDS = {
    "plain": [((4, 4), (7, 5)), ((5, 6), (3, 3))],
    "flop": [((4, 4), (7, 5)), ((5, 7), (3, 4)), ((4, 6), (9, 1)), ((2, 1), (2, 4))],
    "octic": [((4, 4), (6, 6)), ((6, 6), (2, 2))],
}
CASES = [(name, *grids) for name, pairs in GRIDS.items() for grids in pairs]


def embedding(name, grid):
    layer = SYMMETRIES[name].position_embedding(WIDTH, grid).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer


def added(layer, grid):
    """What it adds to features on the grid, by its own forward."""
    shapes = SYMMETRIES_OF[type(layer)].shapes(grid, WIDTH)
    own = SYMMETRIES_OF[type(layer)].feature_of(torch.zeros(1, *shape).double() for shape in shapes)
    return layer(own)


SYMMETRIES_OF = {type(embedding(name, (2, 2))): symmetry for name, symmetry in SYMMETRIES.items()}


def assert_same(one, two, tolerance=1e-12):
    for part, other in zip(parts_of(one), parts_of(two), strict=True):
        assert part.shape == other.shape
        assert (part - other).abs().max() <= tolerance


@pytest.mark.parametrize(("name", "grid", "other"), CASES)
def test_resizing_is_interpolating_what_is_added(name, grid, other):
    layer = embedding(name, grid)

    def interpolated(part):
        planes = part.movedim(-1, 1)
        return F.interpolate(planes, size=other, mode="bicubic", align_corners=False).movedim(1, -1)

    with torch.no_grad():
        before = added(layer, grid)
        assert_same(added(layer.resized(other), other), each(interpolated, before))
        assert_same(added(layer, grid), before, tolerance=0)


@pytest.mark.parametrize(("name", "grid", "other"), CASES)
def test_resized_positions_have_the_symmetry(name, grid, other):
    with torch.no_grad():
        whole = added(embedding(name, grid).resized(other), other)
    assert parts_of(whole)[0].std() > 0.1
    for generator in SYMMETRIES[name].generators:
        assert_same(generator.features(whole), whole)


@pytest.mark.parametrize(("name", "grid", "other"), CASES)
def test_what_was_learnt_is_found_again(name, grid, other):
    layer = embedding(name, grid)
    with torch.no_grad():
        whole = added(layer, grid)
        for parameter, value in zip(layer.parameters(), layer.learnt(whole), strict=True):
            parameter.copy_(value.reshape(parameter.shape))
        assert_same(added(layer, grid), whole)


@pytest.mark.parametrize(("name", "grid", "other"), CASES)
def test_for_inference_the_whole_is_kept(name, grid, other):
    layer = embedding(name, grid)
    x = added(layer, grid)
    assert_same(layer.folded()(x), layer(x), tolerance=0)


def test_the_same_grid_changes_nothing():
    layer = embedding("octic", (4, 4))
    assert layer.resized((4, 4)) is layer


def test_type_and_place_of_the_parameters_are_kept():
    layer = embedding("flop", (4, 4))
    assert {parameter.dtype for parameter in layer.resized((2, 2)).parameters()} == {torch.float64}
    assert all(parameter.requires_grad for parameter in layer.resized((2, 2)).parameters())


@pytest.mark.parametrize("grid", [(5, 5), (4, 6)])
def test_a_grid_that_the_symmetry_cannot_have(grid):
    with pytest.raises(ValueError, match="octic"):
        embedding("octic", (4, 4)).resized(grid)
