"""The parts of a step: what decays, how fast it learns, what labels become, what losses and averages are."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flopbench.errors import FlopbenchError
from flopbench.models import create_model
from flopbench.recipes import Loss, Mix, Optimiser, Schedule
from flopbench.training.optimising import Average, make_loss, make_mixer, make_optimiser, make_schedule

SIZES = {
    "vit_ti16": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2, "layer_scale": 0.5},
    "resmlp_t12": {"patch_size": 4, "width": 32, "depth": 2},
    "convnext_iso_s": {"patch_size": 4, "widths": (32,), "depths": (2,), "layer_scale": 0.5},
}
# What has no dimension but that of channels, however a symmetry lays it out.
VECTORS = ("bias", "norm", "gamma", "cls_token", "pos_embed")


@pytest.mark.parametrize(
    "name",
    [f"{family}{version}" for family in SIZES for version in ("", ".flop", ".hybrid")]
    + ["vit_ti16.octic", "vit_ti16.octic_hybrid"],
)
def test_vectors_tokens_and_positions_do_not_decay(name):
    model = create_model(name, image_size=8, num_classes=3, **SIZES[name.partition(".")[0]])
    optimiser = make_optimiser(model, Optimiser(name="adamw", learning_rate=1e-3, weight_decay=0.1))
    decays = {
        id(parameter)
        for group in optimiser.param_groups
        if group["weight_decay"]
        for parameter in group["params"]
    }
    for path, parameter in model.named_parameters():
        expected = not any(part in path for part in VECTORS)
        assert (id(parameter) in decays) == expected, path


def rates(settings, steps, steps_per_epoch):
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    schedule = make_schedule(optimiser, settings, steps, steps_per_epoch)
    found = []
    for step in range(steps):
        schedule(step)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_the_rate_rises_linearly_and_falls_by_a_cosine():
    settings = Schedule(warmup_epochs=2, warmup_rate=0.01, final_rate=0.001, per="step")
    found = rates(settings, 20, 4)
    assert found[:9] == pytest.approx([0.01 + 0.09 * step / 8 for step in range(8)] + [found[8]])
    falling = [0.001 + 0.099 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(8, 20)]
    assert found[8:] == pytest.approx(falling)


def test_a_rate_per_epoch_is_that_of_its_first_step():
    settings = Schedule(warmup_epochs=2, warmup_rate=0.01, final_rate=0.001)
    every = rates(settings.model_copy(update={"per": "step"}), 20, 4)
    assert rates(settings, 20, 4) == [every[step - step % 4] for step in range(20)]


def test_a_rate_asks_for_nothing_but_the_step():
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    schedule = make_schedule(optimiser, Schedule(per="step"), 20, 4)
    schedule(19)
    schedule(7)
    assert optimiser.param_groups[0]["lr"] == rates(Schedule(per="step"), 20, 4)[7]


def test_settings_reach_the_optimiser():
    settings = Optimiser(name="lamb", learning_rate=2e-3, eps=1e-7, betas=(0.8, 0.9), clip=0.5)
    (group, *_) = make_optimiser(nn.Linear(2, 2), settings).param_groups
    assert (group["lr"], group["eps"], group["betas"], group["max_grad_norm"]) == (
        2e-3,
        1e-7,
        (0.8, 0.9),
        0.5,
    )
    # As apex's does.
    (group, *_) = make_optimiser(nn.Linear(2, 2), Optimiser(name="lamb", learning_rate=1)).param_groups
    assert group["max_grad_norm"] == 1.0


def test_what_an_optimiser_has_not_is_refused():
    with pytest.raises(FlopbenchError, match=r"unknown optimiser 'adamv'; did you mean .*nadam"):
        make_optimiser(nn.Linear(2, 2), Optimiser(name="adamv", learning_rate=1))
    with pytest.raises(FlopbenchError, match="has no betas"):
        make_optimiser(nn.Linear(2, 2), Optimiser(name="sgd", learning_rate=1, betas=(0.9, 0.99)))


@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_are_mixed_with_the_reverse_of_their_batch(count, kind):
    # Each image has its label in every pixel, each label is as likely as its share of the image.
    labels = torch.arange(count)
    images = labels.float().view(-1, 1, 1, 1).repeat(1, 3, 8, 8)
    before = images.clone()
    np.random.seed(3)
    targets = make_mixer(Mix(**{kind: 1.0}), 5)(images, labels)
    assert targets.sum(1).tolist() == pytest.approx([1.0] * count)
    assert (targets @ torch.arange(5.0)).tolist() == pytest.approx(images.mean((1, 2, 3)).tolist(), abs=1e-5)
    assert torch.equal(images[count // 2 * 2 :], before[count // 2 * 2 :])
    assert count == 1 or not torch.equal(images, before)


def test_without_mixing_labels_stay_labels():
    labels = torch.tensor([1, 0])
    assert make_mixer(Mix(), 3)(torch.zeros(2, 3, 4, 4), labels) is labels


LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
SHARES = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.25, 0.75], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_is_of_smoothed_shares(smoothing):
    smoothed = SHARES * (1 - smoothing) + smoothing / 3
    expected = -(smoothed * LOGITS.log_softmax(1)).sum(1).mean()
    assert make_loss(Loss(smoothing=smoothing))(LOGITS, SHARES).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(("targets", "present"), [(SHARES, SHARES > 0), (torch.tensor([0, 2, 1, 1]), None)])
def test_binary_cross_entropy_takes_every_class_that_is_present_for_one(targets, present, smoothing):
    present = nn.functional.one_hot(targets) if present is None else present
    smoothed = present * (1 - smoothing) + smoothing / 3
    odds = LOGITS.sigmoid()
    expected = -(smoothed * odds.log() + (1 - smoothed) * (1 - odds).log()).mean()
    loss = make_loss(Loss(name="binary-cross-entropy", smoothing=smoothing))
    assert loss(LOGITS, targets).item() == pytest.approx(expected.item(), rel=1e-5)


def test_averages_are_of_weights_and_floating_buffers_and_change_places_with_them():
    model: Any = nn.BatchNorm1d(2)
    average = Average(model, 0.75)
    with torch.no_grad():
        model.weight.fill_(5.0)
        model.running_mean.fill_(4.0)
        model.num_batches_tracked.fill_(7)
    average.update()
    with average.in_place():
        assert model.weight.tolist() == [2.0, 2.0]
        assert model.running_mean.tolist() == [1.0, 1.0]
        assert model.num_batches_tracked.item() == 7
    assert model.weight.tolist() == [5.0, 5.0]
    average.update()
    with average.in_place():
        assert model.weight.tolist() == [2.75, 2.75]
