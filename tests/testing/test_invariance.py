import math

import pytest
import torch

from flopbench.symmetries import FLOP
from flopbench.testing import equivariance_error, photo, random_images


def test_error_is_relative_to_the_deviation_of_the_logits():
    images = random_images(4, 8)
    left, whole = (lambda x: x[..., :4].mean((2, 3))), (lambda x: x.mean((2, 3)))
    assert equivariance_error(whole, images, FLOP.generators) < 1e-5
    error = equivariance_error(left, images, FLOP.generators)
    expected = (left(images) - left(images.flip(-1))).abs().max() / left(images).std()
    assert error == pytest.approx(expected.item())
    assert error == pytest.approx(
        equivariance_error(lambda x: 100 * left(x), images, FLOP.generators), rel=1e-5
    )


@pytest.mark.parametrize(
    "model",
    [
        lambda x: torch.zeros(len(x), 5),
        lambda x: torch.full((len(x), 5), 7.0),
        lambda x: torch.arange(5.0).expand(len(x), 5),
        lambda x: x.mean((2, 3)) / 0,
        lambda x: x.mean((2, 3)).log(),
        lambda x: torch.where(x[:, :, :, 0].mean(2) > 0, 1e30, float("inf")),
    ],
    ids=["zeros", "constant", "blind to the input", "infinite", "not a number", "overflow"],
)
def test_what_proves_nothing_is_an_infinite_error(model):
    assert equivariance_error(model, random_images(3, 8), FLOP.generators) == math.inf


def test_no_gradients_are_kept():
    weight = torch.ones(3, requires_grad=True)
    seen = []

    def model(x):
        seen.append((x.mean((2, 3)) * weight).requires_grad)
        return x.mean((2, 3)) * weight

    equivariance_error(model, random_images(2, 4), FLOP.generators)
    assert seen == [False, False]


def test_random_images_depend_on_the_seed_alone():
    one, two = random_images(2, (4, 6)), random_images(2, (4, 6), torch.float64)
    assert one.shape == (2, 3, 4, 6)
    assert torch.equal(one.double(), two)
    assert not torch.equal(one, random_images(2, (4, 6), seed=1))


def test_the_photo_is_a_normalised_picture_that_is_not_its_own_mirror_image():
    images = photo((32, 48), batch=3)
    assert images.shape == (3, 3, 32, 48)
    assert 0.5 < images.std() < 2
    assert images.mean().abs() < 1
    assert (images - images.flip(-1)).abs().mean() > 0.2
    assert (images[0] - images[1]).abs().mean() > 0.05
    assert photo(16, dtype=torch.float64).dtype == torch.float64


def test_a_single_logit_is_held_against_its_size():
    images = torch.ones(1, 3, 4, 4)
    assert equivariance_error(lambda x: x.mean((1, 2, 3)), images, FLOP.generators) == 0
    assert equivariance_error(lambda x: 0 * x.mean((1, 2, 3)), images, FLOP.generators) == math.inf
