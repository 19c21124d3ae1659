"""A regression test of speed: `pytest test_block.py`."""

import torch
from torch import Tensor, nn

# What else runs on a machine of CI disturbs one thread least.
torch.set_num_threads(1)


class Block(nn.Module):
    """Three linear layers that are independent of one another, of the whole width."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C]` to `[B, C]`."""
        return sum((layer(x) for layer in self.layers), torch.zeros_like(x))


class Merged(Block):
    """The same sum by one layer, whose weight is the sum of the three."""

    def __init__(self, width: int = 512) -> None:
        super().__init__(width)
        self.layers = self.layers[:1]


def test_merged_layers_are_faster(flopbench):
    """Both are timed in turn; the whole interval has to lie above 1.2."""
    flopbench.compare(Block(), Merged(), torch.randn(256, 512), min_speedup=1.2)
