"""The octic group's own layers commute with its generators, and equal what the specification says in full."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from flopbench.models.factory import perturb
from flopbench.symmetries.octic import (
    INVARIANTS,
    OCTIC,
    Octic,
    OcticInvariantise,
    OcticPatchEmbed,
    OcticPositionEmbedding,
    OcticToPlain,
)

TURN, FLOP = OCTIC.generators
# Of the group as it acts on features: numbers of eighths and signs, as the specification lists them.
ELEMENTS = {
    "e": ((0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)),
    "r": ((0, 1), (1, 1), (2, -1), (3, -1), (5, -1), (4, 1), (7, -1), (6, 1)),
    "rr": ((0, 1), (1, 1), (2, 1), (3, 1), (4, -1), (5, -1), (6, -1), (7, -1)),
    "rrr": ((0, 1), (1, 1), (2, -1), (3, -1), (5, 1), (4, -1), (7, 1), (6, -1)),
    "m": ((0, 1), (1, -1), (2, 1), (3, -1), (4, -1), (5, 1), (6, -1), (7, 1)),
    "mr": ((0, 1), (1, -1), (2, -1), (3, 1), (5, 1), (4, 1), (7, 1), (6, 1)),
    "mrr": ((0, 1), (1, -1), (2, 1), (3, -1), (4, 1), (5, -1), (6, 1), (7, -1)),
    "mrrr": ((0, 1), (1, -1), (2, -1), (3, 1), (5, -1), (4, -1), (7, -1), (6, -1)),
}


def act(element: str, x: Any) -> Any:
    """What an element makes of images or of a feature on a grid: its letters from right to left."""
    for letter in element.replace("e", "")[::-1]:
        x = {"r": TURN, "m": FLOP}[letter](x)
    return x


def feature(*shape, seed=0):
    """Normal parts of mean 0.3 in fp64; the last of `shape` is the whole width."""
    generator = torch.Generator().manual_seed(seed)
    *shape, width = shape
    parts = (width // 8,) * 4 + (width // 4,) * 2
    drawn = (torch.randn(*shape, part, generator=generator, dtype=torch.double) + 0.3 for part in parts)
    return Octic(*drawn)


def ready(layer) -> Any:
    return perturb(layer.double()).eval()


def assert_same(x, y):
    assert all(part.abs().max() > 0.1 for part in x)
    for one, other in zip(x, y, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("element", ELEMENTS)
def test_elements_act_on_features_as_they_are_listed(element):
    x = feature(2, 3, 3, 16)
    eighths = OcticToPlain()(x).chunk(8, -1)
    listed = [sign * act(element, eighths[part].permute(3, 0, 1, 2)) for part, sign in ELEMENTS[element]]
    assert_same(OcticToPlain()(act(element, x)).chunk(8, -1), [part.permute(1, 2, 3, 0) for part in listed])


def test_the_generators_generate_eight_elements():
    x = feature(1, 2, 2, 8)
    assert_same(act("rrrr", x), x)
    assert_same(act("mm", x), x)
    assert_same(act("mrmr", x), x)
    images = {act(element, torch.arange(4.0).view(1, 1, 2, 2)).flatten() for element in ELEMENTS}
    assert len({tuple(image.tolist()) for image in images}) == 8


@pytest.mark.parametrize("patch_size", [4, 6])
@pytest.mark.parametrize("element", ELEMENTS)
def test_patches_and_positions_are_equivariant(element, patch_size):
    patches = ready(OcticPatchEmbed(3, 16, patch_size, True))
    positions = ready(OcticPositionEmbedding(16, (4, 4)))
    images = torch.rand(2, 3, 4 * patch_size, 4 * patch_size, dtype=torch.double)
    assert_same(positions(patches(act(element, images))), act(element, positions(patches(images))))


# Signs of the irreps of dimension 1 when the image is mirrored, and when it is turned.
SIGNS = {"a1": (1, 1), "a2": (-1, 1), "b1": (1, -1), "b2": (-1, -1)}


def summed(corner, mirrored, turned):
    """Σ_g χ(g) g·ŵ of a quarter `[..., n, n]`, over the group one element after the other."""
    whole = F.pad(corner, (0, corner.shape[-1], 0, corner.shape[-2]))
    turns = [whole.rot90(k, (-2, -1)) * turned**k for k in range(4)]
    return torch.stack([*turns, *(mirrored * turn.flip(-1) for turn in turns)]).sum(0)


def halves_of_e(corner):
    """Kernels or positions of both components of E."""
    top = torch.cat([corner, -corner.flip(-1)], -1)
    first = torch.cat([top, top.flip(-2)], -2)
    return first, first.rot90(1, (-2, -1))


@pytest.mark.parametrize("patch_size", [4, 6, 14])
def test_patch_embedding_equals_a_convolution_with_whole_kernels(patch_size):
    layer = ready(OcticPatchEmbed(3, 16, patch_size, True))
    kernels = [summed(getattr(layer, f"weight_{irrep}"), *signs) * 8**-0.5 for irrep, signs in SIGNS.items()]
    kernels += [kernel / 2 for kernel in halves_of_e(layer.weight_e)]
    images = torch.randn(2, 3, 2 * patch_size, 4 * patch_size, dtype=torch.double)
    bias = torch.cat([layer.bias, torch.zeros(14, dtype=torch.double)])
    expected = F.conv2d(images, torch.cat(kernels), bias, stride=patch_size).permute(0, 2, 3, 1)
    assert_same(layer(images), expected.split([2, 2, 2, 2, 4, 4], -1))


def test_positions_are_unfolded_by_the_irreps():
    layer = ready(OcticPositionEmbedding(16, (6, 6)))
    expected = [
        summed(getattr(layer, f"weight_{irrep}").movedim(-1, 0), *signs) for irrep, signs in SIGNS.items()
    ]
    expected += halves_of_e(layer.weight_e.movedim(-1, 0))
    assert_same(layer.unfolded(), [part.movedim(0, -1) for part in expected])


def test_initial_values():
    torch.manual_seed(0)
    patches, positions = OcticPatchEmbed(3, 512, 16, True), OcticPositionEmbedding(512, (14, 14))
    for weight in patches.parameters():
        assert weight.abs().max() <= (3 * 8 * 8) ** -0.5
        assert weight.abs().max() > 0.9 * (3 * 8 * 8) ** -0.5
    for weight in positions.parameters():
        assert weight.std().item() == pytest.approx(0.16 / 2**0.5, rel=0.05)


@pytest.mark.parametrize("kind", INVARIANTS)
def test_invariants_are_invariant(kind):
    layer, x = ready(OcticInvariantise(16, kind)), feature(2, 3, 3, 16)
    (y,) = expected = [layer(x)]
    assert y.shape == (2, 3, 3, 16)
    for element in ELEMENTS:
        # The grid is moved with the parts: move it back.
        moved = layer(act(element, x)).permute(0, 3, 1, 2)
        back = act(element.replace("rrr", "t").replace("r", "rrr").replace("t", "r")[::-1], moved)
        assert_same([back.permute(0, 2, 3, 1)], expected)


@pytest.mark.parametrize("kind", INVARIANTS)
def test_invariants_see_more_than_signs(kind):
    # Otherwise a constant would have passed as invariant.
    layer = ready(OcticInvariantise(16, kind))
    assert (layer(feature(2, 5, 16)) - layer(feature(2, 5, 16, seed=1))).abs().max() > 0.1


@pytest.mark.parametrize("kind", INVARIANTS)
def test_gradients_are_finite_where_all_parts_are_zero(kind):
    x = Octic(*(part.zero_().requires_grad_() for part in feature(2, 5, 16)))
    OcticInvariantise(16, kind).double()(x).sum().backward()
    gradients = [part.grad for part in x if part.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OcticPatchEmbed(3, 16, 7, True), "even patch size of at least 4, got 7"),
        (lambda: OcticPatchEmbed(3, 16, 2, True), "even patch size of at least 4, got 2"),
        (lambda: OcticPositionEmbedding(16, (7, 7)), "square grid of an even side, got 7×7"),
        (lambda: OcticPositionEmbedding(16, (4, 6)), "square grid of an even side, got 4×6"),
    ],
)
def test_what_has_no_quarters_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
