"""The trainings that a race consists of: in turns, each from fresh weights, on networks compiled once."""

import gc
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from typing import Any, NamedTuple, Protocol

import torch
import torch._dynamo
from torch import nn

from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.kernels import Ran
from flopbench.kernels.dispatch import observe, together
from flopbench.models.catalog import parse_name
from flopbench.results.races import RacesFolder
from flopbench.results.trainings import Entrant, Point, RaceInfo, Role, Trial
from flopbench.runner.process import describe
from flopbench.runner.sweep import STATUS
from flopbench.timing.device_state import watch
from flopbench.timing.flags import device_flags
from flopbench.timing.workload import compiled_kinds
from flopbench.training.data import Data
from flopbench.training.loop import Trainer
from flopbench.training.preparing import build
from flopbench.training.session import Spent
from flopbench.training.world import World

# What torch keeps of one function for one network: with gradients and without, blocks of two symmetries, and
# the last, smaller batch of an evaluation.
_VERSIONS = 8


class Heat(NamedTuple):
    """One training that a race consists of."""

    race: RaceInfo
    entrant: Entrant
    seed: int
    place: int

    @property
    def id(self) -> tuple[str, Role, int]:
        """That of its trial."""
        return self.race.key, self.entrant.key, self.seed


def heats_of(race: RaceInfo) -> list[Heat]:
    """The trainings of a race in their order: entrants as they are for even seeds, reversed for odd ones.

    So each has its turn early and late (A B B A), and what changes slowly on a machine hits all alike.
    """
    order = [
        (entrant, seed)
        for seed in range(race.declared.seeds)
        for entrant in (race.entrants if seed % 2 == 0 else race.entrants[::-1])
    ]
    return [Heat(race, entrant, seed, place) for place, (entrant, seed) in enumerate(order)]


class RaceObserver(Protocol):
    """Who watches a race."""

    def begin(self, folder: RacesFolder, left: Sequence[Heat], ended: int) -> None:
        """These trainings are to come; so many had ended before."""
        ...

    def heat(self, heat: Heat) -> None:
        """A training begins."""
        ...

    def step(self, step: int, steps: int, loss: float) -> None:
        """So many of its steps are done."""
        ...

    def point(self, point: Point) -> None:
        """It was evaluated."""
        ...

    def finished(self, heat: Heat, trial: Trial) -> None:
        """It has ended, and its record is on disk."""
        ...


@dataclass
class Ready:
    """A race that can be run.

    Entrants that differ in their weights alone share a network, so that it is compiled once.

    Attributes:
        info: its record.
        data: what it is run on.
    """

    info: RaceInfo
    data: Data
    _networks: dict[str, nn.Module] = field(default_factory=dict)
    _ran: dict[str, tuple[set[Any], Ran]] = field(default_factory=dict)

    def network(self, entrant: Entrant, seed: int, device: torch.device) -> nn.Module:
        """An entrant's network on a device, with the weights of a seed."""
        fresh = build(entrant.name, entrant.options, self.info.recipe, len(self.data.classes), seed)
        kept = self._networks.get(_which(entrant))
        if kept is None:
            self._networks[_which(entrant)] = kept = fresh.to(device)
        else:
            # In place: what is compiled knows its tensors.
            kept.load_state_dict(fresh.state_dict())
        return kept

    def ran(self, entrant: Entrant, network: nn.Module, seen: Ran) -> Ran:
        """What an entrant's operations ran as when they were first seen: who trains a network later finds it
        compiled, and nothing is chosen any more. So does a network of blocks like another entrant's.
        """
        which, kinds = _which(entrant), compiled_kinds(network, self.info.recipe.mode)
        if which not in self._ran:
            alike = [ran for others, ran in self._ran.values() if kinds & others]
            self._ran[which] = kinds, reduce(together, alike, seen)
        return self._ran[which][1]

    def release(self) -> None:
        """Let go of the networks, which the next race has no use for."""
        self._networks.clear()


def _which(entrant: Entrant) -> str:
    return json.dumps([entrant.name, entrant.options], sort_keys=True)


def run(
    folder: RacesFolder, ready: Sequence[Ready], world: World, observer: RaceObserver, budget: float | None
) -> None:
    """Run every training that has not ended yet, and write each down when it ends.

    Args:
        folder: of the races; the first process alone reads and writes it.
        ready: the same races.
        world: this process among those that train together.
        observer: who is told.
        budget: seconds for all; a training is not begun if one like it took longer than what is left.

    Raises:
        FlopbenchError: recipe, network and data do not go together, or another process runs these races.
        KeyboardInterrupt: what ended before is in the folder.
    """
    deadline = None if budget is None else time.monotonic() + budget
    with folder.locked() if world.first else nullcontext():
        before: dict[tuple[str, Role, int], float] = {}
        if world.first:
            folder.set_torn_lines_aside()
            before = {trial.id: trial.wall_seconds for trial in folder.trials()}
        took: Any = world.share(before)
        heats = [[heat for heat in heats_of(one.info) if heat.id not in took] for one in ready]
        observer.begin(folder, [heat for some in heats for heat in some], len(took))
        for one, left in zip(ready, heats, strict=True):
            with _compiling(one.info):
                for heat in left:
                    if world.share(_is_too_late(heat, took, deadline)):
                        return
                    observer.heat(heat)
                    trial = train(heat, one, world, observer)
                    if world.first:
                        folder.append(trial)
                    took[heat.id] = trial.wall_seconds
                    observer.finished(heat, trial)
            one.release()


def _is_too_late(heat: Heat, took: dict[tuple[str, Role, int], float], deadline: float | None) -> bool:
    """Whether too little time is left, by what this entrant took with other seeds, or else any training."""
    if deadline is None:
        return False
    alike = [seconds for (race, role, _), seconds in took.items() if (race, role) == heat.id[:2]]
    return time.monotonic() + max(alike or took.values(), default=0.0) > deadline


@contextmanager
def _compiling(race: RaceInfo) -> Iterator[None]:
    """Within it torch keeps what it compiles for all entrants of a race, and nothing of other races."""
    torch.compiler.reset()
    try:
        with torch._dynamo.config.patch(recompile_limit=_VERSIONS * len(race.entrants)):
            yield
    finally:
        torch.compiler.reset()


def train(heat: Heat, ready: Ready, world: World, observer: RaceObserver) -> Trial:
    """One training from fresh weights, whatever comes of it: it may diverge, or run out of memory.

    Raises:
        FlopbenchError: recipe, network and data do not go together.
        Exception: any, where several processes train together: the others wait for this one.
    """
    begun, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    found: dict[str, Any] = {}
    try:
        _train(heat, ready, world, observer, found)
        found["status"] = "ok"
    except Exception as error:
        usage = isinstance(error, FlopbenchError) and not isinstance(error, NothingMeasuredError)
        if usage or world.size > 1:
            raise
        outcome = describe(error)
        found |= {"status": STATUS[outcome.kind], "reason": str(outcome.value)}
    finally:
        _free(world.device)
    return Trial(
        race=heat.race.key,
        entrant=heat.entrant.key,
        seed=heat.seed,
        place=heat.place,
        started=started,
        wall_seconds=round(time.monotonic() - begun, 3),
        **found,
    )


def _train(heat: Heat, ready: Ready, world: World, observer: RaceObserver, found: dict[str, Any]) -> None:
    """Train, and put what is found out into `found` as it comes: a failure has what came before it."""
    entrant = heat.entrant
    network = ready.network(entrant, heat.seed, world.device)
    peak = _peak_of(network, world.device)
    trainer = Trainer(ready.info.recipe, network, ready.data, world, seed=heat.seed, mirror=entrant.mirror)
    with observe() as seen:
        found["compile_seconds"] = round(trainer.warm_up(), 3)
    found["implementations"] = ready.ran(entrant, network, seen)
    # What compiles beside this process has ended by now.
    looking, spent = watch(world.kind), Spent()
    averaged = not parse_name(entrant.name).invariant

    def told(step: int, loss: float) -> None:
        looking.glance()
        observer.step(step, trainer.steps, loss)

    try:
        for goal in trainer.evaluations:
            spent.add(trainer.run(goal, told))
            point = spent.point(trainer, averaged=averaged)
            found["points"] = (*found.get("points", ()), point)
            observer.point(point)
        found["inference"] = trainer.time_inference()
    finally:
        state = looking.report()
        if world.size > 1 or multiprocessing.active_children():
            # The others that train, and those that read images, are not foreign.
            state.pop("foreign_cores", None)
        found |= {"device_state": state, "flags": tuple(device_flags(state)), "peak_bytes": peak()}


def _peak_of(network: nn.Module, device: torch.device) -> Callable[[], int | None]:
    """What tells the peak of a GPU's memory from here on, without what lies there beside the network."""
    if device.type != "cuda":
        return lambda: None
    own = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    beside = torch.cuda.memory_allocated(device) - own
    torch.cuda.reset_peak_memory_stats(device)
    return lambda: torch.cuda.max_memory_allocated(device) - beside


def _free(device: torch.device) -> None:
    """Give back what an ended training held, so that the next one begins as the first did."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
