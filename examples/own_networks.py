"""A pair of one's own: a small network, and one that mirror symmetry makes cheaper.

Run in this folder: `flopbench run --suite own_networks.toml`.
"""

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Images `[B, 3, H, W]` to logits `[B, num_classes]`, of any size that the patches divide."""

    def __init__(self, width: int = 64, patch: int = 16, num_classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = torch.relu(self.mix(self.patches(images)))
        return self.head(features.mean((2, 3)))


class Folded(Small):
    """The same network on the sum of the image's left half and its mirrored right half.

    Mirroring the image only swaps the two, so the logits stay, for half the work of the convolutions.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        left, right = images.chunk(2, dim=-1)
        return super().forward(left + right.flip(-1))


def small() -> nn.Module:
    """The baseline: what `own_networks:small` names."""
    return Small()


def folded() -> nn.Module:
    """The candidate."""
    return Folded()
