"""Parameters and MACs of every published row, on the meta device."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import flopbench
from flopbench.models import SPECS
from flopbench.models.factory import num_parameters
from tests.support.counts import published_counts

ROWS = published_counts("models.csv")


def test_every_row_is_in_the_catalogue():
    assert len(ROWS) == 41


@pytest.mark.parametrize("name", ROWS)
def test_parameters_and_macs(name):
    row = ROWS[name]
    with torch.device("meta"):
        model = flopbench.create_model(name).eval()
        assert num_parameters(model) == int(row["trainable_parameters"])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            logits = model(torch.empty(1, 3, 224, 224))
    assert logits.shape == (1, 1000)
    macs, published = counter.get_total_flops() // 2, int(row["macs"])
    if row["version"] == "X":
        assert macs == published
    else:
        # Folded inputs save some, but not more than stems and downsampling cost.
        assert 0.95 * published < macs <= published


@pytest.mark.parametrize(("size", "scale"), [("s", None), ("b", None), ("l", 1e-6)])
def test_of_the_isotropic_convnexts_the_largest_alone_has_layer_scale(size, scale):
    assert SPECS[f"convnext_iso_{size}"].config["layer_scale"] == scale


def test_no_network_keeps_buffers():
    # They would have no values after building on the meta device.
    with torch.device("meta"):
        for name in ("vit_ti16", "resmlp_t12", "convnext_iso_s", "convnext_t"):
            for version in SPECS[name].names:
                model = flopbench.create_model(version)
                assert not list(model.buffers())
