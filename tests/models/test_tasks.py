"""Networks of tasks beside classification commute with the group: f(g x) = g f(x), for each generator."""

from functools import partial, reduce
from typing import cast

import pytest
import torch

from flopbench.errors import FlopbenchError
from flopbench.models.averaged import Averaged
from flopbench.models.catalog import parse_name
from flopbench.models.factory import perturb
from flopbench.models.tasks import TASKS
from flopbench.symmetries import FLOP, OCTIC, Symmetry
from flopbench.symmetries.actions import OF_KIND
from flopbench.symmetries.generators import elements
from flopbench.symmetries.registry import load
from flopbench.testing import assert_equivariant
from tests.models.networks import build

# Of grids that double before they are read, and of a pyramid.
COARSE = {
    "vit": {"patch_size": 8, "depth": 2},
    "resmlp": {"patch_size": 8, "depth": 2},
    "convnext": {"widths": (8, 16, 24), "depths": (1, 1, 1)},
    "convnext_iso": {"patch_size": 8, "depths": (2,)},
}
SIZES = {"even": (16, 32), "odd": (24, 40), "tall": (40, 24)}


def dense(family, version="flop", image_size=(24, 40), task="segmentation", **options):
    return build(family, version, image_size, task=task, **{**COARSE[family], **options})


def assert_commutes(model, images: torch.Tensor) -> None:
    """f(g x) = g f(x) and its gradients, g each generator of the symmetry it begins with."""
    act = OF_KIND[model.task.kind].act
    for generator in cast(Symmetry, load(model.first.about)).generators:
        acts = generator.images, partial(act, generator)
        assert_equivariant(model, images, *acts, dtypes=[torch.float64])


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("family", COARSE)
def test_the_convolutional_decoder_commutes(family, size):
    model = dense(family, image_size=size, decoder="conv")
    images = torch.randn(2, 3, *size)
    assert_commutes(model, images)
    assert model(images).shape == (2, 5, *size)


@pytest.mark.parametrize("task", ["features", "segmentation", "depth", "normals"])
@pytest.mark.parametrize("family", COARSE)
def test_every_task_commutes(family, task):
    for size, head in ((SIZES["odd"], "invariant"), (SIZES["even"], "absolute")):
        assert_commutes(dense(family, image_size=size, task=task, head=head), torch.randn(2, 3, *size))


@pytest.mark.parametrize(
    ("task", "decoder"), [("features", "linear"), ("depth", "conv"), ("normals", "linear")]
)
def test_octic_networks_commute_with_turns_too(task, decoder):
    model = dense("vit", "octic", (16, 16), task, decoder=decoder, patch_size=8, width=32)
    assert_commutes(model, torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("version", ["plain", "flop", "octic"])
def test_normals_are_unit_vectors_and_turn(version):
    model = perturb(dense("vit", version, (16, 16), "normals", decoder="conv", width=32)).eval()
    if version != "plain":
        assert_commutes(model, torch.randn(2, 3, 16, 16))
    v = model(torch.randn(2, 3, 16, 16))
    torch.testing.assert_close(v.norm(dim=1), torch.ones(2, 16, 16))
    # Not all the same way: each component says something.
    assert (v.std((0, 2, 3)) > 0.01).all()


@pytest.mark.parametrize("family", ["vit", "resmlp"])
def test_without_a_grid_or_vectors_a_task_is_refused(family):
    with pytest.raises(ValueError, match="equivariant version"):
        dense(family, "early_invariant", task="normals")
    with pytest.raises(ValueError, match="equivariant version"):
        dense(family, "early_invariant", decoder="conv")


@pytest.mark.parametrize("task", ["segmentation", "depth", "features"])
def test_a_name_tells_that_an_early_invariant_resmlp_has_no_grid(task):
    with pytest.raises(FlopbenchError, match=f"no task {task}.*equivariant version"):
        parse_name("resmlp_t12.early_invariant").check_task(task, "linear")
    parse_name("vit_s16.early_invariant").check_task(task, "linear")


@pytest.mark.parametrize("indices", ["last", [1.5], 2.0])
def test_intermediates_are_chosen_by_whole_numbers(indices):
    with pytest.raises(FlopbenchError, match="indices must be a number of blocks"):
        dense("vit", "flop").forward_intermediates(torch.randn(1, 3, 24, 40), indices)


def test_there_are_no_fewer_registers_than_none():
    with pytest.raises(ValueError, match="registers must not be negative"):
        dense("vit", "plain", registers=-1)


@pytest.mark.parametrize("task", ["segmentation", "depth", "features"])
def test_invariants_move_with_the_grid(task):
    assert_commutes(dense("vit", "early_invariant", task=task), torch.randn(2, 3, 24, 40))


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


@pytest.mark.parametrize("family", COARSE)
def test_intermediates_are_features_on_grids(family):
    model = perturb(dense(family, task="features").double().eval())
    images = torch.randn(2, 3, 24, 40, dtype=torch.float64)
    last, found = model.forward_intermediates(images)
    assert len(found) == len(model.states(images))
    (generator,) = cast(Symmetry, load(model.first.about)).generators
    mirrored = model.forward_intermediates(generator.images(images), intermediates_only=True)
    for one, other in zip(found, mirrored, strict=True):
        torch.testing.assert_close(tuple(generator.features(one)), tuple(other))
    torch.testing.assert_close(tuple(model.forward_intermediates(images, 1)[0]), tuple(last))
    if not family.startswith("convnext"):
        torch.testing.assert_close(tuple(last), tuple(model(images)))
    assert len(model.forward_intermediates(images, [-1], intermediates_only=True)) == 1


@pytest.mark.parametrize("indices", [0, 3, [2], [-3]])
def test_blocks_that_there_are_not_are_told(indices):
    with pytest.raises(FlopbenchError, match="out of range: take"):
        dense("vit").forward_intermediates(torch.randn(1, 3, 24, 40), indices)


@torch.no_grad()
@pytest.mark.parametrize(("task", "count"), [("classification", 8), ("normals", 8), ("segmentation", 2)])
def test_what_is_averaged_is_the_mean_of_every_answer_moved_back(task, count):
    symmetry = OCTIC if count == 8 else FLOP
    model = dense("vit", "plain", (16, 16), task).double()
    averaged = Averaged(model, symmetry, TASKS[task]).eval()
    images, act = torch.randn(2, 3, 16, 16).double(), OF_KIND[model.task.kind].act
    answers = []
    for element, inverse in elements(symmetry.generators):
        answer = model(reduce(lambda x, generator: generator.images(x), element, images))
        answers.append(reduce(lambda y, generator: act(generator, y), inverse, answer))
    assert len(answers) == count
    torch.testing.assert_close(averaged(images), torch.stack(answers).mean(0))
    assert torch.equal(averaged.train()(images), model(images))


@torch.no_grad()
@pytest.mark.parametrize("symmetry", [FLOP, OCTIC], ids=["flop", "octic"])
@pytest.mark.parametrize("task", ["segmentation", "normals"])
def test_what_is_averaged_compiles_as_a_whole(task, symmetry):
    for generator in symmetry.generators:
        vars(generator).pop("plane", None)
    averaged = Averaged(dense("vit", "plain", (16, 16), task), symmetry, TASKS[task]).eval()
    images = torch.randn(1, 3, 16, 16)
    torch._dynamo.reset()
    compiled = torch.compile(averaged, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), averaged(images))
