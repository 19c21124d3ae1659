"""Test-time augmentation: a network's answers to all of a group's images of one, averaged."""

from typing import Any

import torch
from torch import Tensor, nn

from flopbench.cost import Cost, Shapes
from flopbench.models.tasks import Task
from flopbench.symmetries import Symmetry
from flopbench.symmetries.actions import OF_KIND
from flopbench.symmetries.generators import elements


class Averaged(nn.Module):
    """f̄(x) = 1/|G| Σ_g g⁻¹ f(g x): as equivariant as the group's own networks, at |G| times the cost of f.

    All images of the batch go through the network together, as one batch of |G| times as many. While it is
    trained it is f alone, for this is what one does to a trained network.
    """

    def __init__(self, network: nn.Module, symmetry: Symmetry, task: Task) -> None:
        super().__init__()
        self.network, self.task = network, task
        self.elements = elements(symmetry.generators)
        self._act = OF_KIND[task.kind].act
        if task.kind == "vectors":
            # Found out here: a compiler could not follow.
            self.planes = [generator.plane for generator in symmetry.generators]

    def forward(self, images: Tensor) -> Any:
        """Images `[B, 3, H, W]` to what the network gives."""
        if self.training:
            return self.network(images)
        moved = []
        for element, _ in self.elements:
            view = images
            for generator in element:
                view = generator.images(view)
            moved.append(view)
        total, *answers = self.network(torch.cat(moved)).unflatten(0, (len(moved), -1))
        # One after another: all of them at once, of an image's pixels, would be as much memory again.
        for (_, inverse), answer in zip(self.elements[1:], answers, strict=True):
            for generator in inverse:
                answer = self._act(generator, answer)
            total = total + answer
        return total * (1 / len(moved))

    def cost(self, shapes: Shapes) -> Cost:
        """A sum for each answer but the first, and a factor; the network is a child."""
        return Cost(elementwise=len(self.elements) * shapes.written)


def layer_name(model: nn.Module, path: str) -> str:
    """What the layer at a path of `model` is called: within an averaged network, as in that network alone."""
    return path.removeprefix("network.") if isinstance(model, Averaged) else path
