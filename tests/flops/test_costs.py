import pytest
import torch
from torch import nn

from flopbench.flops import layer_costs
from flopbench.flops.costs import total
from flopbench.flops.tree import layer_rows
from flopbench.inputs import Inputs, inputs_for


@pytest.mark.parametrize("name", ["vit_ti16.flop", "resmlp_t12.hybrid", "convnext_t"])
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_layers_add_up_to_the_network(build, name, pass_):
    model, size = build(name)
    costs = layer_costs(model, inputs_for(model, None, 2, size), pass_)
    whole = total(costs)
    assert whole.parameters == sum(p.numel() for p in model.parameters())
    assert 0 < whole.fused_bytes <= whole.bytes
    # Weights and logits at the very least.
    assert whole.fused_bytes > 4 * whole.parameters
    assert all(cost.fused_bytes <= cost.bytes for cost in costs)


def test_what_grows_with_the_batch_and_what_with_the_type(build):
    model, size = build("vit_ti16")
    one, four = (total(layer_costs(model, inputs_for(model, None, batch, size))) for batch in (1, 4))
    assert four.macs == 4 * one.macs
    assert four.parameters == one.parameters
    # Weights are read once whatever the batch.
    assert one.bytes_read < four.bytes_read < 4 * one.bytes_read
    half = layer_costs(model, inputs_for(model, None, 1, size), dtype_bytes=2)
    assert total(cost for cost in half if cost.type == "Linear").bytes * 2 == (
        total(
            cost for cost in layer_costs(model, inputs_for(model, None, 1, size)) if cost.type == "Linear"
        ).bytes
    )


def test_a_fused_layer_stores_nothing_between():
    class Chain(nn.Module):
        def forward(self, x):
            return ((x + 1) * 2 - 3).abs()

    (cost,) = layer_costs(Chain(), Inputs(torch.zeros(1, 3, 8, 8)))
    elements = 3 * 8 * 8
    assert cost.elementwise == 4 * elements
    assert (cost.bytes_read, cost.bytes_written) == (4 * 4 * elements, 4 * 4 * elements)
    assert cost.fused_bytes == 2 * 4 * elements


def test_equivariant_layers_halve_but_for_what_cannot(build):
    plain, flop = build("vit_ti16"), build("vit_ti16.flop")
    networks = [
        (model, layer_costs(model, inputs_for(model, None, 1, size))) for model, size in (plain, flop)
    ]
    rows = {row.name: row for row in layer_rows(networks, depth=3)}
    halved = ["patch_embed", "blocks.0–1.attn.qkv", "blocks.0–1.mlp.fc2", "head", "blocks.0–1.attn.proj"]
    assert [rows[name].ratio() for name in halved] == [2.0] * 5
    assert rows["blocks.0–1.attn itself"].ratio() == 1.0
    assert rows["blocks.0–1.attn.qkv"].type == "Linear / IrrepLinear"
    assert rows["total"].ratio("parameters") == pytest.approx(2, rel=0.01)
    listed = [row for name, row in rows.items() if name != "total"]
    for side, (_, costs) in enumerate(networks):
        for figure in ("macs", "elementwise", "bytes", "parameters"):
            found = sum(getattr(row.costs[side], figure, 0) for row in listed)
            assert found == getattr(total(costs), figure)


def test_blocks_that_differ_have_rows_of_their_own(build):
    networks = [
        (model, layer_costs(model, inputs_for(model, None, 1, size)))
        for model, size in (build("vit_ti16"), build("vit_ti16.hybrid"))
    ]
    names = [row.name for row in layer_rows(networks, depth=2)]
    assert "blocks.0.mlp" in names
    assert "blocks.1.mlp" in names
    (alone,) = [row for row in layer_rows(networks, depth=1) if row.name == "blocks"]
    assert alone.ratio() is not None


def test_the_optimiser_is_part_of_a_train_pass_alone():
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    inputs = inputs_for(model, None, 1, (4, 4))
    names = {p: [c.name for c in layer_costs(model, inputs, p)] for p in ("backward", "train")}
    assert names == {"backward": ["1"], "train": ["1", "(optimiser)"]}
    step = layer_costs(model, inputs, "train")[-1]
    assert (step.bytes_read, step.bytes_written) == (4 * 4 * 98, 3 * 4 * 98)
