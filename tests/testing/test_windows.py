"""Networks with windows: of a grid that they do not divide, padded on one side or on both."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.testing import assert_equivariant


class Windows(nn.Module):
    """Mean-centres each window of `side` × `side` cells, of a grid that is padded to whole windows."""

    def __init__(self, side: int, *, symmetric: bool) -> None:
        super().__init__()
        self.side, self.symmetric = side, symmetric

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape."""
        missing = [-length % self.side for length in images.shape[-2:]]
        before = [rest // 2 if self.symmetric else 0 for rest in missing]
        top, left = before
        x = F.pad(images, (left, missing[1] - left, top, missing[0] - top))
        windows = x.unflatten(-1, (-1, self.side)).unflatten(-3, (-1, self.side))
        x = (windows - windows.mean((-1, -3), keepdim=True)).flatten(-2).flatten(-3, -2)
        return x[..., top : top + images.shape[-2], left : left + images.shape[-1]]


IMAGES = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))


def test_windows_that_lie_symmetrically_keep_the_symmetry():
    # Seven columns in windows of three: one more on either side.
    assert_equivariant(Windows(3, symmetric=True), IMAGES)


@pytest.mark.parametrize("symmetric", [False, True])
def test_windows_that_lie_to_one_side_break_it(symmetric):
    # Of seven columns in windows of four, one is missing: there are no two sides to put it on.
    with pytest.raises(AssertionError, match="flop"):
        assert_equivariant(Windows(4 if symmetric else 3, symmetric=symmetric), IMAGES)
