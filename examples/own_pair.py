# %% [markdown]
# # Two networks of one's own
#
# Any two modules or callables will do. Here a small network of images, and one that sees the left half of
# an image and the mirrored right half added up: mirroring the image only swaps the two, so its logits stay,
# for half the work of the convolutions.

# %% networks
import torch
from torch import Tensor, nn

import flopbench


class Small(nn.Module):
    """Images `[B, 3, H, W]` to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 128, 8, stride=8)
        self.mix = nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3))
        self.head = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, 10]`."""
        return self.head(self.mix(self.patches(images)).mean((2, 3)))


class Folded(Small):
    """The same on the sum of the left half and the mirrored right half."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B, 10]`."""
        left, right = images.chunk(2, dim=-1)
        return super().forward(left + right.flip(-1))


# %% [markdown]
# What both are called with is a tensor, or, for several batch sizes, a function that makes one.

# %% measure
result = flopbench.benchmark(
    Small(),
    Folded(),
    lambda batch_size: torch.randn(batch_size, 3, 128, 128),
    batch_sizes=[1, 8],
    passes=["forward", "train"],
    precision=0.1,
    cell_seconds=2,
)
print(result)

# %% [markdown]
# The picture is the report's, a matplotlib figure: `result.plot().savefig("speed.svg")`.

# %% picture
result.plot()

# %% [markdown]
# Whether the folded network has the symmetry that it is built for is a question of its own. The plain one
# has not.

# %% symmetry
images = torch.randn(2, 3, 128, 128)
flopbench.assert_equivariant(Folded(), images)
try:
    flopbench.assert_equivariant(Small(), images)
except AssertionError as error:
    print(error)

# %% [markdown]
# `result.frame()` is a pandas DataFrame with one row per cell; `result.save("runs")` keeps the raw samples,
# `result.report("report")` writes the report.

# %% frame
frame = result.frame()
print(frame[["candidate_label", "batch_size", "pass", "macs_ratio", "speedup", "speedup_low"]].round(2))

# %% [markdown]
# A notebook shows a result by itself:

# %% notebook
result
