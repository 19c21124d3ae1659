"""Training: what one step does, and that nothing but the step's number decides it."""

import torch

from flopbench.training.loop import Trainer
from tests.support.training import WORLD, Noise, network, recipe


def trainer(model=None, seed=0, accumulation=1, mirror=None, checkpointing=False, **fields):
    return Trainer(
        recipe(**fields),
        network() if model is None else model,
        Noise(),
        WORLD,
        seed=seed,
        accumulation=accumulation,
        mirror=mirror,
        checkpointing=checkpointing,
    )


def weights(trained):
    return {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns():
    training = trainer(epochs=20, mix={})
    before, _ = training.evaluate()
    segment = training.run(training.steps)
    after, averaged = training.evaluate()
    assert (segment.steps, segment.samples) == (60, 480)
    assert segment.seconds > 0
    assert after.plain.nll < before.plain.nll - 0.3
    assert averaged is not None
    assert averaged.plain.nll != after.plain.nll
    assert after.images == 10


def test_warm_up_changes_nothing():
    warm, cold = trainer(), trainer()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert warm.warm_up() > 0
    assert torch.equal(torch.get_rng_state(), state)
    for training in (warm, cold):
        training.run(4)
    assert same(weights(warm), weights(cold))
