"""The losses of a training's steps, and the end of one whose numbers are not finite any more."""

import math

import torch
from torch import Tensor

from flopbench.errors import NothingMeasuredError
from flopbench.recipes import Recipe
from flopbench.timing.workload import product_dtype


class DivergedError(NothingMeasuredError):
    """A training whose loss or weights are not finite any more."""


class Losses:
    """The losses of steps, left on the device until somebody looks."""

    def __init__(self, step: int, recipe: Recipe) -> None:
        self.step, self.recipe = step, recipe
        self.total = self.last = 0.0
        self.waiting: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """That of the next step."""
        self.waiting.append(loss)

    def look(self) -> float:
        """The last one, once it has been computed.

        Raises:
            DivergedError: one that was not looked at before is not finite.
        """
        losses = torch.stack(self.waiting).tolist() if self.waiting else []
        self.waiting.clear()
        for self.last in losses:
            self.step += 1
            if not math.isfinite(self.last):
                raise diverged(f"the loss is {self.last} at step {self.step}", self.recipe)
            self.total += self.last
        return self.last


def diverged(what: str, recipe: Recipe) -> DivergedError:
    """The error that says what is not finite, and what of the recipe would help."""
    remedies = ["lower optimiser.learning_rate", "lengthen schedule.warmup_epochs", "bound optimiser.clip"]
    if product_dtype(recipe.dtype) == torch.float16:
        remedies.append("train in bf16")
    return DivergedError(f"{what}: {', '.join(remedies[:-1])} or {remedies[-1]}")
