from typing import Any

import pytest

from flopbench.cells import AXES
from flopbench.cli.axes import cells_of
from flopbench.errors import FlopbenchError


@pytest.mark.parametrize(
    ("pair", "axes", "message"),
    [
        ("vit_s16.flop", {"modes": ("cuda-graph",)}, "exists on CUDA only"),
        ("vit_s16.flop", {"image_sizes": ("225",)}, "must be a multiple of 16"),
        ("vit_s16", {}, "has no baseline"),
    ],
)
def test_options_that_do_not_suit_are_named(pair: str, axes: dict[str, Any], message: str):
    with pytest.raises(FlopbenchError, match=message):
        cells_of(pair, "cpu", axes)


@pytest.mark.parametrize(
    ("axis", "text", "message"),
    [
        ("pass", "fwd", "--pass: input should be 'forward', 'backward' or 'train', got 'fwd'"),
        ("batch_size", "0", "--batch-size: input should be greater than or equal to 1, got '0'"),
        ("image_size", "1x2x3", "--image-size: not an image size; write 224 or 224x192"),
    ],
)
def test_what_is_no_value_of_an_axis_is_named(axis: str, text: str, message: str):
    with pytest.raises(FlopbenchError, match=message):
        AXES[axis].parse(text)


def test_what_is_left_out_is_as_suits_the_device():
    (cell,) = cells_of("vit_s16.flop@vit_ti16", "cpu", {"image_sizes": ("224x192",)})
    assert cell.id == "vit_s16.flop@vit_ti16/cpu/b4/forward/fp32/eager/224x192"
    (cell,) = cells_of("vit_s16.flop", "cuda", {})
    assert cell.id == "vit_s16.flop/cuda/b64/forward/bf16/eager"
