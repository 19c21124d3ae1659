"""Training: what one step does, and that nothing but the step's number decides it."""

from functools import partial
from itertools import accumulate

import pytest
import torch
from torch import nn

from flopbench.errors import FlopbenchError
from flopbench.flops import layer_costs
from flopbench.flops.meta import on_meta
from flopbench.inputs import Inputs
from flopbench.training.loop import Segment, Trainer
from flopbench.training.losses import DivergedError
from flopbench.training.session import Spent
from tests.support.training import WORLD, Noise, network, recipe

PLAIN = {"mix": {}, "ema": None}


def trainer(model=None, seed=0, data=None, accumulation=1, mirror=None, checkpointing=False, **fields):
    return Trainer(
        recipe(**fields),
        network() if model is None else model,
        data or Noise(),
        WORLD,
        seed=seed,
        accumulation=accumulation,
        mirror=mirror,
        checkpointing=checkpointing,
    )


def small():
    """Images to logits through a layer that counts what it saw."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(144, 4))


def trained(until=4, **how):
    training = trainer(**how)
    training.run(until)
    return weights(training)


def weights(training):
    return {name: tensor.clone() for name, tensor in training.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def close(one, other):
    return all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_it_learns():
    training = trainer(epochs=10, mix={})
    before, _ = training.evaluate()
    segment = training.run(training.steps)
    after, averaged = training.evaluate()
    assert (segment.steps, segment.samples) == (30, 240)
    assert segment.seconds > 0
    assert after.plain.nll < before.plain.nll - 0.1
    assert averaged is not None
    assert averaged.plain.nll not in (before.plain.nll, after.plain.nll)
    assert after.images == 10


def test_warm_up_changes_nothing():
    for build in (network, small):
        warm = trainer(build())
        torch.manual_seed(5)
        state = torch.get_rng_state()
        assert warm.warm_up() > 0
        assert torch.equal(torch.get_rng_state(), state)
        warm.run(4)
        assert same(weights(warm), trained(model=build()))


def test_the_seed_decides_and_nothing_else():
    first = trained(seed=1)
    torch.manual_seed(7)
    assert same(first, trained(seed=1))
    assert not same(first, trained(seed=2))


def test_pauses_and_evaluations_change_nothing():
    training = trainer(small())
    for until in (1, 2, 5, 7):
        training.run(until)
        training.evaluate()
    assert same(weights(training), trained(7, model=small()))


def test_parts_of_a_batch_add_up_to_it():
    def build():
        return network(drop_path=0.0)

    mixed = {"ema": None, "optimiser": {"name": "sgd", "learning_rate": 0.1, "clip": 1.0}}
    assert close(trained(model=build(), accumulation=4, **mixed), trained(model=build(), **mixed))


def test_checkpointing_changes_nothing_but_memory():
    # The paths that are dropped are the same the second time.
    assert close(trained(checkpointing=True), trained())


def test_the_share_of_mirrored_images_is_the_callers():
    # To an equivariant network an image and its mirror image are one.
    assert close(trained(mirror=1.0, **PLAIN), trained(**PLAIN))
    assert not close(trained(model=small(), mirror=1.0, **PLAIN), trained(model=small(), **PLAIN))


@pytest.mark.parametrize("dtype", ["bf16", "autocast-fp16"])
def test_arithmetic_in_few_bits_keeps_weights_in_fp32(dtype):
    training = trainer(dtype=dtype)
    seen = []
    handle = training.model.get_submodule("head").register_forward_hook(
        lambda module, args, output: seen.append(output.dtype)
    )
    training.run(2)
    training.evaluate()
    handle.remove()
    assert set(seen) == {torch.float16 if "fp16" in dtype else torch.bfloat16}
    assert {tensor.dtype for tensor in training.model.parameters()} == {torch.float32}
    assert training.scaler.is_enabled() == (dtype == "autocast-fp16")


def test_gradients_are_clipped_as_they_are_not_as_they_are_scaled():
    optimiser = {"name": "sgd", "learning_rate": 0.1, "clip": 0.5}
    training = trainer(small(), dtype="autocast-fp16", optimiser=optimiser, schedule={}, **PLAIN)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    training.run(1)
    moved = [now - then for now, then in zip(training.model.parameters(), before, strict=True)]
    # timm's SGD is Nesterov's: the first step is of 1.9 gradients.
    assert nn.utils.get_total_norm(moved).item() == pytest.approx(1.9 * 0.1 * 0.5, rel=1e-3)


def test_evaluations_are_where_the_recipe_has_them():
    def evaluations(every, epochs=4):
        evaluation = {"every_epochs": every}
        return trainer(small(), epochs=epochs, schedule={}, evaluation=evaluation).evaluations

    assert evaluations(2) == (6, 12)
    assert evaluations(3) == (9, 12)
    assert evaluations(0.5, 1) == (2, 3)
    assert evaluations(0.01, 1) == (1, 2, 3)
    assert evaluations(100) == (12,)


def test_every_loss_is_told_and_averaged():
    told = []
    training = trainer(small(), **PLAIN)
    first = training.run(3, lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [1, 2, 3]
    assert first.loss == pytest.approx(sum(loss for _, loss in told) / 3)
    second = training.run(100)
    assert (second.steps, second.samples, training.step) == (6, 48, training.steps)


def test_macs_are_those_of_forward_and_backward():
    model = network("vit_ti16")
    costs = layer_costs(on_meta(model), Inputs(torch.empty(1, 3, 8, 8, device="meta")))
    forward = sum(cost.macs for cost in costs)
    assert 2.5 * forward < trainer(model).macs < 3 * forward


def test_a_loss_that_is_not_finite_ends_it():
    class Exploding(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(192, 4)

        def forward(self, images):
            return self.layer(images.flatten(1)).exp().exp()

    optimiser = {"name": "sgd", "learning_rate": 100.0}
    with pytest.raises(DivergedError) as caught:
        trainer(Exploding(), optimiser=optimiser, **PLAIN).run(9)
    message = str(caught.value)
    assert message.startswith(("the loss is nan at step ", "the loss is inf at step "))
    assert "lower optimiser.learning_rate" in message
    assert "\n" not in message


def test_weights_that_are_not_finite_are_never_saved():
    model = small()
    model[4].register_full_backward_hook(lambda layer, gradients, _: (gradients[0] * float("nan"),))
    training = trainer(model, optimiser={"name": "sgd", "learning_rate": 0.1}, **PLAIN)
    with pytest.raises(DivergedError, match="weights are not finite after step 1"):
        training.run(1)


def test_energy_is_what_the_counter_gained():
    training = trainer(small(), **PLAIN)
    training.clock.energy = iter([10.0, 12.5]).__next__
    assert training.run(1).joules == 2.5
    training.clock.energy = lambda: None
    assert training.run(2).joules is None


@pytest.mark.parametrize(("each", "calls"), [(0.001, 50), (0.1, 9), (10.0, 5)])
def test_inference_is_timed_once_it_is_warm_for_as_long_as_it_takes(monkeypatch, each, calls):
    training = trainer(small(), **PLAIN)
    # The first call takes longer than the others, and the clock stands still between them.
    moments = accumulate(step for call in range(60) for step in (0.0, 2 * each if call == 0 else each))
    monkeypatch.setattr(training.clock, "now", lambda: next(moments))
    found = training.time_inference()
    assert found.seconds == pytest.approx([each] * calls)
    assert found.rate == pytest.approx(8 / each)
    assert not training.model.training


def test_energy_that_is_not_known_of_a_part_is_not_known_of_the_whole():
    spent = Spent()
    for joules, total in ((2.0, 2.0), (3.0, 5.0), (None, None), (1.0, None)):
        spent.add(Segment(steps=1, samples=8, seconds=0.5, losses=0.0, joules=joules))
        assert spent.joules == total
    assert (spent.seconds, spent.since_seconds, spent.since_steps) == (2.0, 2.0, 4)


# torch's own, of what its compiler looks at.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("mode", ["compile", "compile-blocks"])
def test_an_entrant_is_compiled_once(monkeypatch, mode):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    model = network(impl="eager")
    for seed in (0, 1):
        model.load_state_dict(network(seed=seed).state_dict())
        training = trainer(model, seed=seed, mode=mode)
        before = len(graphs)
        training.warm_up()
        warmed = len(graphs)
        assert (warmed > before) == (seed == 0)
        # Beyond an epoch, and with an evaluation whose last batch is smaller than the others.
        training.run(5)
        training.evaluate()
        assert len(graphs) == warmed


def test_what_does_not_go_together_is_refused():
    with pytest.raises(FlopbenchError, match=r"a batch of 8 does not divide into 3 equal parts"):
        trainer(accumulation=3)
    with pytest.raises(FlopbenchError, match="no repeated blocks to compile"):
        trainer(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), mode="compile-blocks")
    with pytest.raises(FlopbenchError, match="cannot recompute its activations"):
        trainer(small(), checkpointing=True)
    with pytest.raises(FlopbenchError, match="noise has 4 classes: build it with num_classes=4"):
        trainer(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), **PLAIN)
    with pytest.raises(FlopbenchError, match="Flatten has no weights to train"):
        trainer(nn.Flatten(), **PLAIN)
    with pytest.raises(FlopbenchError, match=r"Linear fails on an image of .* pixels: RuntimeError: "):
        trainer(nn.Linear(5, 4), **PLAIN)
    with pytest.raises(
        FlopbenchError, match=r"Conv2d gives \[1, 4, 8, 8\] for one image, not logits \[1, 4\]"
    ):
        trainer(nn.Conv2d(3, 4, 1), **PLAIN)
    with pytest.raises(FlopbenchError, match="'adamw' refuses its settings: Invalid beta"):
        trainer(optimiser={"name": "adamw", "learning_rate": 1e-3, "betas": (1.0, 1.0)})
