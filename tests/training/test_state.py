"""Checkpoints: a training that was stopped anywhere goes on to the same weights, to the bit."""

import pytest
import torch

from flopbench.errors import FlopbenchError
from flopbench.results.trainings import NetworkInfo
from flopbench.training import state
from flopbench.training.loop import Trainer
from flopbench.training.weights import read_weights
from tests.support.disks import files_of_at_most
from tests.support.training import WORLD, Noise, network, recipe

INFO = NetworkInfo(name="vit_ti16.flop", image_size=(8, 8), num_classes=4, mean=(0,) * 3, std=(1,) * 3)


def trainer(seed=0, **fields):
    return Trainer(recipe(**fields), network(), Noise(), WORLD, seed=3, accumulation=2)


def content(training):
    found = training.state_dict()
    return {(part, name): tensor for part in ("model", "ema") for name, tensor in found.get(part, {}).items()}


def assert_same(one, other):
    one, other = content(one), content(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


OPTIMISERS = {
    "adamw": {"name": "adamw", "learning_rate": 1e-2, "weight_decay": 0.05, "clip": 1.0},
    "lamb": {"name": "lamb", "learning_rate": 3e-3, "weight_decay": 0.02},
    "sgd": {"name": "sgd", "learning_rate": 1e-2},
}


@pytest.mark.parametrize(("optimiser", "stop"), [("adamw", 0), ("adamw", 4), ("lamb", 6), ("sgd", 4)])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path, optimiser, stop):
    # In the middle of an epoch and at its end; mixing, dropped paths, averages and accumulation are on.
    optimiser = OPTIMISERS[optimiser]
    whole = trainer(optimiser=optimiser)
    whole.run(whole.steps)

    stopped = trainer(optimiser=optimiser)
    stopped.run(stop)
    state.save(tmp_path, stopped, INFO)
    resumed = trainer(optimiser=optimiser)
    resumed.run(1)
    state.load(tmp_path, resumed)
    assert resumed.step == stop
    resumed.warm_up()
    resumed.run(7)
    resumed.evaluate()
    resumed.run(resumed.steps)
    assert_same(whole, resumed)


def test_weights_lie_beside_it_and_say_what_they_are(tmp_path):
    training = trainer()
    training.run(2)
    state.save(tmp_path, training, INFO)
    weights, info = read_weights(tmp_path / "weights.safetensors")
    averaged, _ = read_weights(tmp_path / "ema.safetensors")
    assert info == INFO.model_copy(update={"recipe": "tiny", "step": 2})
    fresh = network(seed=1)
    fresh.load_state_dict(weights)
    for name, own in training.model.state_dict().items():
        assert torch.equal(weights[name], own)
    assert any(not torch.equal(averaged[name], weights[name]) for name in weights)


def test_without_averages_there_is_no_file_of_them(tmp_path):
    state.save(tmp_path, trainer(ema=None), INFO)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "weights.safetensors"}


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    training = trainer()
    training.run(2)
    state.save(tmp_path, training, INFO)
    before = content(training)
    files = sorted(tmp_path.iterdir())
    training.run(4)
    # The weights fit, the checkpoint does not.
    size = (tmp_path / "checkpoint.pt").stat().st_size - 1
    with files_of_at_most(size), pytest.raises(FlopbenchError, match="last checkpoint is kept") as caught:
        state.save(tmp_path, training, INFO)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == files
    state.load(tmp_path, training)
    assert training.step == 2
    assert all(torch.equal(content(training)[key], before[key]) for key in before)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    training = trainer()
    with pytest.raises(FlopbenchError, match="No such file"):
        state.load(tmp_path, training)
    state.save(tmp_path, training, INFO)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FlopbenchError, match="cannot read the checkpoint"):
        state.load(tmp_path, training)
    path.write_text("text")
    with pytest.raises(FlopbenchError, match="cannot read the checkpoint"):
        state.load(tmp_path, training)
    torch.save({"step": 1}, path)
    with pytest.raises(FlopbenchError, match="another network or recipe"):
        state.load(tmp_path, training)


def test_a_checkpoint_runs_no_code(tmp_path):
    torch.save({"step": network()}, tmp_path / "checkpoint.pt")
    with pytest.raises(FlopbenchError, match="cannot read the checkpoint"):
        state.load(tmp_path, trainer())
