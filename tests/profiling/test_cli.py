import pytest

from flopbench.cli.profile import make_cell
from flopbench.errors import FlopbenchError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pass_": "fwd"}, "unknown pass 'fwd'; did you mean forward"),
        ({"dtype": "fp8"}, "unknown dtype 'fp8'"),
        ({"mode": "cuda-graph"}, "exists on CUDA only"),
        ({"size": "225"}, "must be a multiple of 16"),
        ({"pair": "vit_s16"}, "has no baseline"),
    ],
)
def test_options_that_do_not_suit_are_named(changes: dict[str, str], message: str):
    options = {"pair": "vit_s16.flop", "pass_": "forward", "dtype": "fp32", "mode": "eager", "size": "224"}
    with pytest.raises(FlopbenchError, match=message):
        make_cell(device="cpu", batch=4, **{**options, **changes})


def test_a_baseline_can_be_stated():
    cell = make_cell("vit_s16.flop@vit_ti16", "cpu", 4, "forward", "fp32", "eager", "224")
    assert cell.pair.baseline == "vit_ti16"
