import math

import pytest
import torch

from flopbench.recipes import Schedule
from flopbench.training.optimising import make_schedule

pytest.importorskip("timm")

STEPS, PER_EPOCH = 100, 10


def rates(**fields: float | bool | str) -> list[float]:
    """The learning rate of every step, of at most 1."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    settings = Schedule.model_validate({"per": "step", "warmup_epochs": 2, "warmup_rate": 0.1} | fields)
    schedule = make_schedule(optimiser, settings, STEPS, PER_EPOCH)
    found = []
    for step in range(STEPS):
        schedule(step)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def test_the_warm_up_takes_the_place_of_the_cosines_beginning():
    found = rates()
    assert found[:21:10] == pytest.approx([0.1, 0.55, cosine(0.2)])
    assert found[60] == pytest.approx(cosine(0.6))


def test_a_whole_cosine_begins_at_the_end_of_the_warm_up():
    found = rates(whole_cosine=True)
    assert found[:21:10] == pytest.approx([0.1, 0.55, 1.0])
    assert found[60] == pytest.approx(cosine(0.5))


def test_a_rate_per_epoch_stays_within_one():
    found = rates(per="epoch")
    assert len(set(found)) == STEPS // PER_EPOCH
    assert found[30:40] == [found[30]] * PER_EPOCH
