"""The octic group's layers and networks commute with it, and are what the specification says in full."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import flopbench
from flopbench.models.factory import num_parameters, perturb
from flopbench.models.layers import Attention
from flopbench.models.vit import VisionTransformer
from flopbench.symmetries import FLOP, OCTIC, Halves, Octic, each, fold
from flopbench.symmetries.octic import INVARIANTS
from flopbench.testing import assert_equivariant
from tests.support.counts import published_counts

TURN, MIRROR = OCTIC.generators
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
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def act(element: str, x: Any, how: str = "__call__") -> Any:
    """What an element makes of images or of a feature on a grid: its letters from right to left."""
    for letter in element.replace("e", "")[::-1]:
        x = getattr({"r": TURN, "m": MIRROR}[letter], how)(x)
    return x


def feature(*shape, seed=0):
    """Normal parts of mean 0.3 in fp64; the last of `shape` is the whole width."""
    generator = torch.Generator().manual_seed(seed)
    *shape, width = shape
    widths = (width // 8,) * 4 + (width // 4,) * 2
    return Octic(*(torch.randn(*shape, c, generator=generator, dtype=torch.double) + 0.3 for c in widths))


def ready(layer) -> Any:
    return perturb(layer.double()).eval()


def assert_same(x, y):
    assert all(part.abs().max() > 0.01 for part in x)
    for one, other in zip(x, y, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("element", ELEMENTS)
def test_elements_act_on_features_as_they_are_listed(element):
    x = feature(2, 3, 3, 16)
    eighths = OCTIC.change_of_basis()(x).chunk(8, -1)
    listed = [sign * act(element, eighths[part].permute(3, 0, 1, 2)) for part, sign in ELEMENTS[element]]
    assert_same(
        OCTIC.change_of_basis()(act(element, x)).chunk(8, -1), [part.permute(1, 2, 3, 0) for part in listed]
    )


def test_the_generators_generate_eight_elements():
    x = feature(1, 2, 2, 8)
    assert_same(act("rrrr", x), x)
    assert_same(act("mm", x), x)
    assert_same(act("mrmr", x), x)
    images = {act(element, torch.arange(4.0).view(1, 1, 2, 2)).flatten() for element in ELEMENTS}
    assert len({tuple(image.tolist()) for image in images}) == 8


def test_the_group_permutes_the_points_of_the_transform():
    transform = OCTIC.transform
    eighths = torch.eye(8, dtype=torch.double)
    x = Octic(*eighths[:, [0, 1, 2, 3, 4, 6, 5, 7]].split([1, 1, 1, 1, 2, 2], -1))
    into = torch.cat(transform.points(x), -1)
    torch.testing.assert_close(into @ into.T, eighths)
    torch.testing.assert_close(Octic(*transform.parts(into.split(1, -1))), x)
    for element in ELEMENTS:
        moved = torch.cat(transform.points(act(element, x, "channels")), -1)
        permutation = (into.T @ moved).round(decimals=12)
        assert sorted(permutation.flatten().tolist()) == [0] * 56 + [1] * 8
        assert (permutation.sum(0) == 1).all()


def test_flopping_is_a_part_of_it():
    def halves(x):
        return Halves(torch.cat([x.a1, x.b1, x.e2], -1), torch.cat([x.a2, x.b2, x.e1], -1))

    x = feature(2, 3, 3, 16)
    assert_same(halves(MIRROR(x)), FLOP.generators[0](halves(x)))


class OnGrid(nn.Module):
    """A layer of tokens, called with those of a grid."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        y = self.layer(each(lambda part: part.flatten(1, 2), x))
        return each(lambda part: part.unflatten(1, (2, 2)), y)


LAYERS = {
    "linear": lambda: OCTIC.linear(16, 32),
    "layer norm": lambda: OCTIC.layer_norm(16, 1e-5),
    "gelu": lambda: OCTIC.activation(),
    "attention": lambda: OnGrid(Attention(OCTIC, 16, 2, fused=True)),
    "unfused attention": lambda: OnGrid(Attention(OCTIC, 16, 2, fused=False)),
    "positions": lambda: OCTIC.position_embedding(16, (2, 2)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_are_equivariant(layer):
    assert_equivariant(LAYERS[layer](), feature(2, 2, 2, 16), symmetry=OCTIC)


def test_residual_is_equivariant():
    residual = OCTIC.residual(16, layer_scale=0.1, drop_path=0.5)
    both = feature(2, 2, 2, 16), feature(2, 2, 2, 16, seed=1)
    assert_equivariant(residual, both, symmetry=OCTIC)


def test_a_class_token_is_in_the_trivial_irrep():
    layer, x = ready(OCTIC.class_token(16)), feature(2, 4, 16)
    y = layer(x)
    assert_same([part[:, 1:] for part in y], x)
    torch.testing.assert_close(y.a1[:, :1], layer.weight_a1.expand(2, 1, 2))
    assert not any(part[:, 0].any() for part in y[1:])


def test_layer_norm_follows_the_formula():
    layer, x = ready(OCTIC.layer_norm(16, 1e-3)), feature(4, 16)
    centred = [part - part.mean(-1, keepdim=True) for part in x]
    a1, a2, b1, b2, e1, e2 = (part.square().mean(-1, keepdim=True) for part in centred)
    sigma = ((a1 + a2 + b1 + b2 + (e1 + e2) / 2 + 1e-3) / 8).sqrt()
    expected = [
        part / sigma * getattr(layer, f"weight_{name}")
        for part, name in zip(centred, ("a1", "a2", "b1", "b2", "e", "e"), strict=True)
    ]
    expected[0] += layer.bias
    assert_same(layer(x), expected)


@pytest.mark.parametrize("patch_size", [4, 6])
@pytest.mark.parametrize("element", ELEMENTS)
def test_patches_and_positions_are_equivariant(element, patch_size):
    patches = ready(OCTIC.patch_embed(3, 16, patch_size))
    positions = ready(OCTIC.position_embedding(16, (4, 4)))
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


@pytest.mark.parametrize("layer", [OCTIC.patch_embed(3, 16, 4), OCTIC.position_embedding(16, (4, 4))])
def test_layers_that_are_folded_for_inference_give_the_same(layer):
    model = nn.Sequential(ready(layer))
    x = IMAGES if hasattr(layer, "bias") else feature(2, 4, 4, 16)
    expected = model(x)
    fold(model)
    assert_same(model(x), expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("patch_size", [4, 6, 14])
def test_patch_embedding_equals_a_convolution_with_whole_kernels(patch_size):
    layer = ready(OCTIC.patch_embed(3, 16, patch_size))
    kernels = [summed(getattr(layer, f"weight_{irrep}"), *signs) * 8**-0.5 for irrep, signs in SIGNS.items()]
    kernels += [kernel / 2 for kernel in halves_of_e(layer.weight_e)]
    images = torch.randn(2, 3, 2 * patch_size, 4 * patch_size, dtype=torch.double)
    bias = torch.cat([layer.bias, torch.zeros(14, dtype=torch.double)])
    expected = F.conv2d(images, torch.cat(kernels), bias, stride=patch_size).permute(0, 2, 3, 1)
    assert_same(layer(images), expected.split([2, 2, 2, 2, 4, 4], -1))


def test_positions_are_unfolded_by_the_irreps():
    layer = ready(OCTIC.position_embedding(16, (6, 6)))
    expected = [
        summed(getattr(layer, f"weight_{irrep}").movedim(-1, 0), *signs) for irrep, signs in SIGNS.items()
    ]
    expected += halves_of_e(layer.weight_e.movedim(-1, 0))
    assert_same(layer.unfolded(), [part.movedim(0, -1) for part in expected])


def test_initial_values():
    torch.manual_seed(0)
    patches, positions = OCTIC.patch_embed(3, 512, 16), OCTIC.position_embedding(512, (14, 14))
    for weight in patches.parameters():
        assert weight.abs().max() <= (3 * 8 * 8) ** -0.5
        assert weight.abs().max() > 0.9 * (3 * 8 * 8) ** -0.5
    for weight in positions.parameters():
        assert weight.std().item() == pytest.approx(0.16 / 2**0.5, rel=0.05)
    (token,) = OCTIC.class_token(65536).parameters()
    assert token.std().item() == pytest.approx(0.16, rel=0.05)


@pytest.mark.parametrize("kind", INVARIANTS)
def test_invariants_are_invariant(kind):
    layer, x = ready(OCTIC.invariantise(16, kind)), feature(2, 3, 3, 16)
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
    layer = ready(OCTIC.invariantise(16, kind))
    assert (layer(feature(2, 5, 16)) - layer(feature(2, 5, 16, seed=1))).abs().max() > 0.1


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_finite_where_all_parts_are_zero(compiled):
    layer = OCTIC.invariantise(16).double()
    x = Octic(*(part.zero_().requires_grad_() for part in feature(2, 5, 16)))
    (torch.compile(layer) if compiled else layer)(x).sum().backward()
    gradients = [part.grad for part in x if part.grad is not None]
    assert len(gradients) == 6
    assert gradients[0].any()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OCTIC.patch_embed(3, 16, 7), "even patch size of at least 4, got 7"),
        (lambda: OCTIC.patch_embed(3, 16, 2), "even patch size of at least 4, got 2"),
        (lambda: OCTIC.position_embedding(16, (7, 7)), "square grid of an even side, got 7×7"),
        (lambda: OCTIC.position_embedding(16, (4, 6)), "square grid of an even side, got 4×6"),
    ],
)
def test_what_has_no_quarters_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


class Trunk(nn.Module):
    """What reaches the join of a network, its class token and its grid of tokens."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        seen = []
        with self.network.join.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
            self.network(images)
        side = round((seen[0].a1.shape[1] - 1) ** 0.5)
        grid = each(lambda part: part[:, 1:].unflatten(1, (side, side)), seen[0])
        return grid, each(lambda part: part[:, 0], seen[0])


def network(version, **more) -> Any:
    sizes = {"image_size": (16, 16), "num_classes": 5, "patch_size": 4, "width": 32, "depth": 3, "heads": 2}
    return ready(VisionTransformer(symmetry=version, **(sizes | more)))


MOVED = torch.cat([act(element, IMAGES) for element in ELEMENTS])
"""The images as all elements move them."""


@pytest.mark.parametrize("version", ["octic_hybrid", "octic_early_invariant"])
def test_a_trunk_is_equivariant(version):
    trunk = Trunk(network(version, depth=4))
    grid, token = trunk(IMAGES)
    grids, tokens = ([part.chunk(8) for part in moved] for moved in trunk(MOVED))
    for index, element in enumerate(ELEMENTS):
        assert_same([part[index] for part in grids], act(element, grid))
        assert_same([part[index] for part in tokens], act(element, token, "channels"))


@pytest.mark.parametrize("version", ["octic", "octic_early_invariant"])
@pytest.mark.parametrize("kind", INVARIANTS)
def test_networks_are_invariant(kind, version):
    model = network(version, invariants=kind)
    expected = model(IMAGES)
    for logits in model(MOVED).chunk(8):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    # Not because all images are alike to it.
    assert (model(IMAGES.flip(1)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("generator", OCTIC.generators, ids=lambda generator: generator.name)
def test_a_hybrid_is_not_invariant(generator):
    model = network("octic_hybrid")
    assert (model(generator(IMAGES)) - model(IMAGES)).abs().max() > 1e-3


@pytest.mark.parametrize("version", ["octic", "octic_early_invariant"])
def test_gradients_of_networks_are_finite_where_e_is_zero(version):
    # Before the first block a class token is in A1 alone, and of one block I8 has no octic one.
    model = network(version, depth=1)
    if version == "octic":
        model.blocks, model.switch = torch.nn.ModuleList(), 0
    model(IMAGES).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert model.cls_token.weight_a1.grad.abs().max() > 0
    assert all(gradient.isfinite().all() for gradient in gradients)


COUNTS = published_counts("octic-models.csv")


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_macs(name):
    parameters, macs = (int(COUNTS[name][column]) for column in ("trainable_parameters", "macs_folded"))
    with torch.device("meta"):
        model: Any = flopbench.create_model(name).eval()
        assert num_parameters(model) == parameters
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, 224, 224))
    if name.endswith(".octic"):
        # The specification multiplies the invariants of all tokens, the head sees those of one.
        tokens, width = model.pos_embed.unfolded().a1.shape[0] ** 2, model.head.in_features
        macs -= tokens * width * (6 * width // 8)
    assert counter.get_total_flops() == 2 * macs
