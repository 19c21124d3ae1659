"""Networks of tasks beside classification commute with the group: f(g x) = g f(x), for each generator."""

from functools import partial

import pytest
import torch

from flopbench.models.factory import perturb
from flopbench.symmetries.actions import OF_KIND
from flopbench.symmetries.generators import Generator
from flopbench.testing import assert_equivariant
from tests.models.networks import build

# Of grids that double before they are read, and of a pyramid.
COARSE = {
    "vit": {"patch_size": 8, "depth": 2},
    "convnext": {"widths": (8, 16, 24), "depths": (1, 1, 1)},
    "convnext_iso": {"patch_size": 8, "depths": (2,)},
}
SIZES = {"even": (16, 32), "odd": (24, 40), "tall": (40, 24)}


def dense(family, version="flop", image_size=(24, 40), task="segmentation", **options):
    return build(family, version, image_size, task=task, **{**COARSE[family], **options})


def assert_commutes(model, images: torch.Tensor, **checks) -> None:
    """f(g x) = g f(x) and its gradients, g each generator of the symmetry it begins with."""
    act = OF_KIND[model.task.kind].act
    for generator in model.first.generators:
        assert isinstance(generator, Generator)
        assert_equivariant(model, images, generator.images, partial(act, generator), **checks)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("family", COARSE)
def test_the_convolutional_decoder_commutes(family, size):
    model = dense(family, image_size=size, decoder="conv")
    images = torch.randn(2, 3, *size)
    assert_commutes(model, images)
    assert model(images).shape == (2, 5, *size)


@pytest.mark.parametrize("version", ["plain", "flop", "hybrid"])
def test_a_pyramid_is_taken_in_whole(version):
    model = perturb(dense("convnext", version, decoder="conv")).eval()
    model(torch.randn(1, 3, 24, 40)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert len(model.head.levels) == 3


@pytest.mark.parametrize(("patch_size", "levels"), [(2, 1), (4, 1), (7, 1), (8, 2), (14, 2), (16, 3)])
def test_a_grid_doubles_while_its_cells_are_of_four_pixels_at_least(patch_size, levels):
    size = (2 * patch_size, 3 * patch_size)
    model = dense("vit", image_size=size, patch_size=patch_size, decoder="conv")
    assert len(model.head.levels) == levels
    assert model(torch.randn(1, 3, *size)).shape == (1, 5, *size)


def test_invariants_have_no_decoder_that_would_keep_the_symmetry():
    with pytest.raises(ValueError, match="take segmentation or depth with decoder='linear'"):
        dense("vit", "early_invariant", decoder="conv")
