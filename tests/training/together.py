"""What tests let torchrun start in each process: `together.py train FOLDER DEVICE` or `together.py fail`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from flopbench import cli
from flopbench.errors import FlopbenchError
from flopbench.results.trainings import DataInfo
from flopbench.training.loop import Trainer
from flopbench.training.world import World, world
from tests.support.training import CLASSES, Noise, network, recipe

WAYS = {"replicated": False, "sharded": True}


class Odd(Noise):
    """Nine images to validate on, which two processes cannot share evenly."""

    validation = DataInfo(name="noise", split="validation", images=9, classes=CLASSES)


def trainer(place: World, *, sharded: bool = False, accumulation: int = 2) -> Trainer:
    """Nothing is random but the order of images: each process draws numbers of its own."""
    plain = recipe(mix={}, optimiser={"name": "lamb", "learning_rate": 1e-2, "clip": 0.5})
    model = network(seed=place.rank, drop_path=0.0).to(place.device)
    return Trainer(plain, model, Odd(place), place, seed=0, sharded=sharded, accumulation=accumulation)


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Over all weights."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def trained(place: World, folder: Path, *, sharded: bool) -> dict[str, Any]:
    """By all processes, without and with an interruption, and by this one alone."""
    together = trainer(place, sharded=sharded)
    together.warm_up()
    together.run(4)
    saved = folder / f"{'sharded' if sharded else 'replicated'}.pt"
    state = together.state_dict()
    if place.first:
        torch.save(state, saved)
    together.run(6)
    now, averaged = together.evaluate()
    after = together.state_dict()

    resumed = trainer(place, sharded=sharded)
    place.share(None)  # the checkpoint is there
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    resumed.run(6)
    again = resumed.state_dict()

    alone = trainer(World(place.device), accumulation=1)
    alone.run(6)
    whole = alone.state_dict()
    if not place.first:
        return {}
    alone.load_state_dict(after | {"optimiser": whole["optimiser"]})
    figures = alone.evaluate()
    return {
        "difference": {key: largest_difference(after[key], whole[key]) for key in ("model", "ema")},
        "resumed": {key: largest_difference(after[key], again[key]) for key in ("model", "ema")},
        "accuracy": [found.model_dump() for found in (now, averaged) if found],
        "alone": [found.model_dump() for found in figures if found],
    }


def skipped(place: World) -> bool:
    """Whether all processes leave their weights alone where a gradient in one of them is not finite."""
    sharded = trainer(place, sharded=True)
    scaler = torch.amp.GradScaler(place.device.type)
    for parameter in sharded.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    gradient = next(iter(sharded.model.parameters())).grad
    assert isinstance(gradient, DTensor)
    if place.rank == place.size - 1:
        gradient.to_local().fill_(torch.inf)
    before = sharded.state_dict()["model"]
    scaler.scale(torch.ones((), device=place.device))
    scaler.step(sharded.optimiser)
    after = sharded.state_dict()["model"]
    return not place.first or largest_difference(before, after) == 0


def train(folder: Path, device: Any) -> None:
    """Prints what the tests look at."""
    with world(device) as place:
        found = {way: trained(place, folder, sharded=sharded) for way, sharded in WAYS.items()}
        print(json.dumps(found | {"skipped": skipped(place)}))


def fail() -> None:
    """The second process fails while the first one is busy."""
    with world("cpu") as place:
        print(f"process {place.rank} prints", flush=True)
        place.sum(torch.ones(1))
        if place.rank == 1:
            raise FlopbenchError("the disk of the second process is full")
        time.sleep(600)


if __name__ == "__main__":
    if sys.argv[1] == "fail":
        cli.app.command("fail")(fail)
        cli.main()
    train(Path(sys.argv[2]), sys.argv[3])
