"""One training: the loop from the first step to the last, and the clock that runs in it alone."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError
from flopbench.models.tasks import TASKS
from flopbench.recipes import Recipe
from flopbench.results.trainings import Accuracy, Inference
from flopbench.timing.workload import product_dtype
from flopbench.training.accuracy import measure_accuracy
from flopbench.training.batches import Batch, generators_kept, seed_all
from flopbench.training.clock import TrainClock
from flopbench.training.data import Data
from flopbench.training.losses import Losses, diverged
from flopbench.training.optimising import Average, make_loss, make_mixer, make_optimiser, make_schedule
from flopbench.training.parallel import (
    accumulating,
    clip_gradients,
    load_model_state,
    load_optimiser_state,
    model_state,
    optimiser_state,
    parallel,
    weights_norm,
)
from flopbench.training.preparing import check_learns, prepare, training_macs, undone
from flopbench.training.world import World

# Seconds from one look at the losses of a GPU to the next: each look waits for what is queued.
LOOK_SECONDS = 0.5

INFERENCE_SECONDS = 1.0
"""How long the trained network is called at most, unless that is too few times."""

CALLS = (5, 50)
"""How often it is called at least, and at most."""


class Segment(NamedTuple):
    """A part of a training between two evaluations.

    `samples` are images over all processes, `seconds` and `joules` what they took, with reading the data;
    `joules` is None where the device does not tell. `losses` is the sum over the steps: of fp32 numbers in
    fp64, so that it is the same in whatever parts it was added up.
    """

    steps: int
    samples: int
    seconds: float
    losses: float
    joules: float | None

    @property
    def loss(self) -> float:
        """The mean over the steps."""
        return self.losses / self.steps if self.steps else math.nan


class Trainer:
    """Trains a network by a recipe.

    Every random number of a step comes from generators that are seeded by the training's seed and the
    step's number: a training that is resumed goes on as if it had never stopped, on a CPU to the bit.

    Several trainers may train one network one after another, each from weights loaded into it: what the
    first one has compiled serves all.

    Attributes:
        model: the network, whose weights are trained and saved.
        step: how many steps were taken.
        steps: how many there are in all.
        evaluations: the steps after which the recipe wants accuracies measured; the last is `steps`.
        macs: multiply-accumulates that training takes per image, forward and backward, as they are
            counted on the operators of one step; recomputation by checkpointing is not among them.

    Args:
        recipe: how.
        model: on the world's device, neither compiled (unless by another trainer) nor wrapped.
        data: what on.
        world: this process among those that train together.
        seed: of everything random but the initial weights, which `model` has.
        accumulation: parts that each process's share of a batch is computed in, one after another.
        checkpointing: whether activations are computed again in the backward pass instead of kept.
        sharded: whether the weights lie in parts on the devices (FSDP2).
        mirror: share of mirrored images, in the place of the recipe's.

    Raises:
        FlopbenchError: the recipe, the network and the data do not go together.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        data: Data,
        world: World,
        *,
        seed: int,
        accumulation: int = 1,
        checkpointing: bool = False,
        sharded: bool = False,
        mirror: float | None = None,
    ) -> None:
        self.recipe, self.model, self.data, self.world = recipe, model, data, world
        self.seed, self.accumulation, self.mirror, self.sharded = seed, accumulation, mirror, sharded
        self.steps_per_epoch = data.steps(recipe.batch_size)
        parts = world.size * accumulation
        if recipe.batch_size % parts:
            raise FlopbenchError(
                f"a batch of {recipe.batch_size} does not divide into {parts} equal parts "
                f"(processes: {world.size}, accumulated: {accumulation}): choose a batch_size that does"
            )
        self.part = recipe.batch_size // parts
        self.step, self.steps = 0, max(1, round(recipe.epochs * self.steps_per_epoch))
        self.evaluations = _evaluations(recipe.evaluation.every_epochs * self.steps_per_epoch, self.steps)
        check_learns(model, recipe, data.info)
        self.macs = training_macs(model, recipe.image_size)
        prepare(model, recipe, checkpointing=checkpointing)
        self.network = parallel(model, world, recipe.image_size, sharded=sharded)
        self.optimiser = make_optimiser(model, recipe.optimiser)
        self.schedule = make_schedule(self.optimiser, recipe.schedule, self.steps, self.steps_per_epoch)
        self.mix = make_mixer(recipe.mix, data.info.classes)
        self.loss = make_loss(recipe.loss)
        self.average = None if recipe.ema is None else Average(model, recipe.ema)
        self.dtype = product_dtype(recipe.dtype)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.dtype == torch.float16)
        self.clock = TrainClock(world)
        self._batches: Iterator[Batch] | None = None

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return self.optimiser.param_groups[0]["lr"]

    def warm_up(self) -> float:
        """Run a step and an evaluation of one batch each, so that everything is compiled and set up.

        Weights, the optimiser's state and the generators of random numbers are afterwards as they were.

        Returns:
            The seconds that it took.
        """
        begin = self.clock.now()
        with (
            undone(self.model, self.average, self.optimiser, self.scaler),
            generators_kept(self.world.device),
        ):
            batch = next(self._reading())
            shown = next(iter(self.data.validating(self.part)), batch)
            # A CUDA graph is recorded at the second call, and replayed from the third on.
            for _ in range(3):
                self._update(batch)
            self.model.eval()
            for _ in range(3):
                self._predict(shown.images)
        return self.clock.now() - begin

    def run(self, until: int, on_step: Callable[[int, float], None] = lambda step, loss: None) -> Segment:
        """Train up to a step, by the clock.

        Args:
            until: number of the step after which to stop.
            on_step: told the step and its loss in this process: of each on a CPU, of one every now and
                then on a GPU.

        Raises:
            DivergedError: a loss, or in the end a weight, is not finite.
        """
        first, losses, looked = self.step, Losses(self.step, self.recipe), -math.inf
        begin = self.clock.read()
        try:
            batches = self._batches = self._batches or self._reading()
            while self.step < min(until, self.steps):
                losses.add(self._update(next(batches)))
                self.step += 1
                if self.world.kind == "cpu" or time.perf_counter() - looked >= LOOK_SECONDS:
                    on_step(self.step, losses.look())
                    looked = time.perf_counter()
            losses.look()
        except BaseException:
            # The next batch is not the one that the step would have to have.
            self._batches = None
            raise
        seconds, joules = self.clock.since(begin)
        if not weights_norm(self.model).isfinite():
            raise diverged(f"weights are not finite after step {self.step}", self.recipe)
        steps = self.step - first
        total = torch.tensor(losses.total, dtype=torch.float64, device=self.world.device)
        mean = self.world.sum(total).item() / self.world.size
        return Segment(steps, steps * self.recipe.batch_size, seconds, mean, joules)

    def evaluate(self, *, averaged: bool = False) -> tuple[Accuracy, Accuracy | None]:
        """The accuracy of the weights, and of their average where the recipe has one.

        Args:
            averaged: whether to measure mirror test-time augmentation, too.
        """
        self.model.eval()

        def measure() -> Accuracy:
            return measure_accuracy(
                self._predict,
                self._validating(),
                self.world,
                task=TASKS[self.recipe.task],
                classes=self.data.info.classes,
                averaged=averaged,
            )

        now = measure()
        if self.average is None:
            return now, None
        with self.average.in_place():
            return now, measure()

    def time_inference(self) -> Inference:
        """Call the network on one batch of validation images until its time is known.

        Every process calls it; each call waits for the device.
        """
        self.model.eval()
        shown = next(iter(self.data.validating(self.part)), None)
        # A process may have no image of a small set.
        size = (self.part, 3, *self.recipe.image_size)
        images = torch.randn(size, device=self.world.device) if shown is None else shown.images
        calls: list[float] = []
        # The first is not counted: training left the caches to other tensors.
        while len(calls) <= CALLS[0] or (len(calls) <= CALLS[1] and sum(calls) < INFERENCE_SECONDS):
            begin = self.clock.now()
            self._predict(images)
            calls.append(self.clock.now() - begin)
        return Inference(images=len(images) * self.world.size, seconds=tuple(calls[1:]))

    def state_dict(self) -> dict[str, Any]:
        """All that a training needs to go on: whole, on the CPU, as tensors and plain values.

        Every process calls it; what it gives the others than the first is of no use.
        """
        state = {
            "step": self.step,
            "model": model_state(self.model),
            "optimiser": optimiser_state(self.model, self.optimiser),
            "scaler": self.scaler.state_dict(),
        }
        if self.average is not None:
            with self.average.in_place():
                # On a CPU these are the network's own tensors, which are about to change back.
                state["ema"] = {name: tensor.clone() for name, tensor in model_state(self.model).items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave the first process."""
        self.step, self._batches = state["step"], None
        load_model_state(self.model, state["model"])
        load_optimiser_state(self.model, self.optimiser, state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            with self.average.in_place():
                load_model_state(self.model, state["ema"])

    def _reading(self) -> Iterator[Batch]:
        """This process's share of every batch from the next step on."""
        epoch, start = divmod(self.step, self.steps_per_epoch)
        for number in range(epoch, math.ceil(self.steps / self.steps_per_epoch)):
            yield from self.data.training(
                number, start, self.recipe.batch_size, seed=self.seed, mirror=self.mirror
            )
            start = 0

    def _update(self, batch: Batch) -> Tensor:
        """One step; its loss in this process, on the device."""
        self.model.train()
        self.schedule(self.step)
        seed_all(self.seed, self.step, self.world.rank, device=self.world.device)
        targets = self.mix(batch.images, batch.labels)
        parts = zip(batch.images.split(self.part), targets.split(self.part), strict=True)
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.world.device)
        for index, (images, wanted) in enumerate(parts, start=1):
            with accumulating(self.network, last=index == self.accumulation):
                with self._precision():
                    loss = self.loss(self.network(images), wanted) / self.accumulation
                self.scaler.scale(loss).backward()
            total += loss.detach()
        if self.recipe.optimiser.clip is not None:
            self.scaler.unscale_(self.optimiser)
            clip_gradients(self.model, self.recipe.optimiser.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        return total

    @torch.no_grad()
    def _predict(self, images: Tensor) -> Tensor:
        with self._precision():
            return self.model(images)

    def _precision(self) -> AbstractContextManager[Any]:
        # The weights stay in fp32 whatever the arithmetic.
        return (
            nullcontext()
            if self.dtype == torch.float32
            else torch.autocast(self.world.device.type, self.dtype)
        )

    def _validating(self) -> Iterator[Batch]:
        """This process's share of the validation images.

        Sharded weights are gathered by all processes together: those with fewer batches run as many.
        """
        missing = math.ceil(math.ceil(self.data.validation.images / self.world.size) / self.part)
        images = torch.zeros(self.part, 3, *self.recipe.image_size, device=self.world.device)
        for batch in self.data.validating(self.part):
            missing -= 1
            yield batch
        if self.sharded:
            # Each batch as it is, and mirrored.
            for _ in range(2 * missing):
                self._predict(images)


def _evaluations(every: float, steps: int) -> tuple[int, ...]:
    """The steps nearest to multiples of `every`, and the last."""
    every = max(1.0, every)
    found = {round(every * count) for count in range(1, math.ceil(steps / every) + 1)}
    return tuple(sorted({step for step in found if step < steps} | {steps}))
