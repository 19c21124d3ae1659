"""A training while it runs: evaluated, saved, shown, and stopped between two steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from flopbench.kernels import Ran
from flopbench.results.training_folder import TrainingFolder
from flopbench.results.trainings import NetworkInfo, Point, TrainingInfo
from flopbench.training import state
from flopbench.training.loop import Segment, Trainer
from flopbench.training.stops import stops_noted

TURN_SECONDS = 2.0
"""How long is trained between two looks at whether to stop or to save."""

SAVE_SECONDS = 300.0
"""How much training an end without warning costs at most, evaluations apart."""


class Watch:
    """Whoever is told how a training goes on; this one shows nothing."""

    def begin(self, info: TrainingInfo, path: Path, step: int) -> None:
        """It begins in a folder, or goes on after a step; it is compiled, and then the clock runs."""

    def step(self, step: int, loss: float, rate: float) -> None:
        """So many steps are done; the last had this loss and this learning rate."""

    def evaluating(self) -> None:
        """Accuracy is being measured, while the clock stands still."""

    def point(self, point: Point) -> None:
        """What an evaluation came to."""


@dataclass
class Spent:
    """What a training took so far: in all, and since its last evaluation (`since_…`).

    `losses` is the sum over the steps since the last evaluation. Sums of fp32 numbers in fp64, so that they
    are the same wherever the training was interrupted.
    """

    seconds: float = 0.0
    joules: float | None = 0.0
    since_steps: int = 0
    since_seconds: float = 0.0
    losses: float = 0.0

    def add(self, segment: Segment) -> None:
        """Some more steps."""
        self.seconds += segment.seconds
        self.joules = None if self.joules is None or segment.joules is None else self.joules + segment.joules
        self.since_steps += segment.steps
        self.since_seconds += segment.seconds
        self.losses += segment.losses

    def point(self, trainer: Trainer, *, averaged: bool = False, ran: Ran | None = None) -> Point:
        """Measure accuracies, `averaged` those of test-time augmentation too, and say what they took, and
        what operations `ran` as where that is given; what follows is counted from here.
        """
        accuracy, ema = trainer.evaluate(averaged=averaged)
        samples = trainer.step * trainer.recipe.batch_size
        images = self.since_steps * trainer.recipe.batch_size
        point = Point(
            step=trainer.step,
            samples=samples,
            seconds=self.seconds,
            joules=self.joules,
            macs=samples * trainer.macs,
            rate=images / self.since_seconds if self.since_seconds else None,
            loss=self.losses / self.since_steps if self.since_steps else None,
            accuracy=accuracy,
            ema=ema,
            implementations=ran,
        )
        self.since_steps, self.since_seconds, self.losses = 0, 0.0, 0.0
        return point

    def saved(self) -> dict[str, Any]:
        """As plain values, for `Spent(**values)`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Session:
    """One training in its folder.

    Args:
        trainer: what trains, fresh or with a checkpoint loaded; every process has one.
        folder: where points and checkpoints go, which the first process writes.
        network: what files of weights say.
        spent: what was spent until now.
        ran: what operations run as in this process.
        watch: who is told.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: TrainingFolder,
        network: NetworkInfo,
        spent: Spent,
        ran: Ran,
        watch: Watch,
    ) -> None:
        self.trainer, self.folder, self.network = trainer, folder, network
        self.spent, self.ran, self.watch = spent, ran, watch
        self._turn, self._saved = 1, time.monotonic()

    def run(self) -> bool:
        """Train to the end, or until somebody stops it.

        Returns:
            Whether it came to its end.

        Raises:
            FlopbenchError: it diverged, or something cannot be written; the last checkpoint stays.
        """
        trainer = self.trainer
        with stops_noted() as asked:
            while trainer.step < trainer.steps:
                goal = next(step for step in trainer.evaluations if step > trainer.step)
                segment = trainer.run(min(goal, trainer.step + self._turn), self._told)
                self.spent.add(segment)
                if trainer.step == goal:
                    self._evaluate()
                stop, save = self._agreed(segment, asked)
                if stop or (save and trainer.step != goal):
                    self._save()
                if stop:
                    return trainer.step == trainer.steps
        return True

    def _told(self, step: int, loss: float) -> None:
        self.watch.step(step, loss, self.trainer.rate)

    def _agreed(self, segment: Segment, asked: Callable[[], bool]) -> tuple[bool, bool]:
        """Whether to stop and whether to save, in all processes alike, and how long the next turn is."""
        world = self.trainer.world
        stop = bool(world.sum(torch.tensor(float(asked()), device=world.device)).item())
        save = time.monotonic() - self._saved >= SAVE_SECONDS
        per_second = segment.steps / segment.seconds if segment.seconds else 1.0
        turn = max(1, round(TURN_SECONDS * per_second))
        save, self._turn = world.share((save, turn))
        return stop, save

    def _evaluate(self) -> None:
        """Measure accuracies and write them down, then save: who is killed in between does it again."""
        self.watch.evaluating()
        point = self.spent.point(self.trainer, ran=self.ran)
        best = False
        if self.trainer.world.first:
            before = [one.best.plain.figure for one in self.folder.points() if one.step < point.step]
            best = point.best.plain.figure > max(before, default=-1.0)
            with state.written_whole(self.folder.path):
                self.folder.append(point)
        self.watch.point(point)
        self._save(best=best)

    def _save(self, *, best: bool = False) -> None:
        state.save(self.folder.path, self.trainer, self.network, spent=self.spent.saved(), best=best)
        self._saved = time.monotonic()
