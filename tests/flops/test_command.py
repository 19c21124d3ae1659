import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from flopbench import count_flops
from flopbench.cli.flops import read_input
from flopbench.errors import FlopbenchError
from flopbench.flops import audit_report, command, present
from flopbench.flops.audit import audit
from flopbench.flops.costs import LayerCost
from flopbench.flops.meta import build_on_meta
from flopbench.flops.tree import Row
from flopbench.inputs import Inputs, inputs_for


def reads_values():
    """Cannot be built on the meta device as it is."""
    width = int(torch.linspace(1, 4, 4)[-1].item())
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, width))


def test_inputs_are_read():
    assert read_input("3x224x160") == (3, (224, 160))
    assert read_input("1×8×8") == (1, (8, 8))
    for wrong in ("224", "3x224", "3x0x4", "axbxc", "3x4x5x6"):
        with pytest.raises(FlopbenchError, match="3x224x224"):
            read_input(wrong)


def test_names_stand_for_a_pair_or_one_model():
    assert command.names_of("vit_b16.flop") == ("vit_b16", "vit_b16.flop")
    assert command.names_of("vit_b16.flop@vit_l16") == ("vit_l16", "vit_b16.flop")
    assert command.names_of("vit_b16") == ("vit_b16",)
    assert command.names_of("package.module:callable") == ("package.module:callable",)
    with pytest.raises(FlopbenchError, match="did you mean"):
        command.names_of("vit_b61")


def test_foreign_networks_are_counted_even_if_they_must_be_built_on_a_device():
    counted = count_flops(f"{__name__}:reads_values", batch_size=4, image_size=8, channels=2)
    assert counted.audits[0].macs == 4 * 2 * 8 * 8 * 4
    assert counted.rows[-1].costs[0] is not None
    assert counted.rows[-1].costs[0].macs == counted.audits[0].macs


def test_an_input_that_does_not_suit_is_one_line():
    with pytest.raises(FlopbenchError, match=r"cannot run .*reads_values on 1 image of 2x9x8: [^\n]*$"):
        count_flops(f"{__name__}:reads_values", image_size=(9, 8), channels=2)
    with pytest.raises(FlopbenchError, match="3 channels"):
        count_flops("vit_ti16", channels=1)


@pytest.fixture(scope="module")
def pair():
    return count_flops("vit_ti16.flop", image_size=32, pass_="backward", paper=True)


def test_every_format_tells_the_same(pair):
    data = json.loads(pair.text("json"))
    assert data["labels"] == ["ViT-Ti/16", "E(ViT-Ti/16)"]
    whole = data["rows"][-1]
    assert whole["layer"] == "total"
    assert whole["baseline_macs"] == data["networks"][0]["backward"]["FlopCounterMode"]["macs"]
    assert whole["macs_ratio"] == whole["baseline_macs"] / whole["candidate_macs"]
    lines = pair.text("csv").splitlines()
    assert len(lines) == 1 + len(data["rows"])
    assert lines[-1].split(",")[0] == "total"
    assert str(whole["candidate_macs"]) in lines[-1].split(",")
    text = pair.text("markdown")
    assert "blocks.0–11.attn" in text
    assert "paper's sum" in text
    assert f"{data['networks'][1]['paper_sum']:,}".replace(",", " ") in text


@pytest.mark.parametrize("width", [300, 70])
def test_no_figure_is_lost_on_short_lines(pair, width):
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(*pair.tables())
    shown = capture.get()
    assert max(map(len, shown.splitlines())) <= width
    total = pair.rows[-1].costs
    for figure in ("macs", "elementwise", "bytes", "fused_bytes"):
        for cost in total:
            assert present.four_digits(getattr(cost, figure)) in shown
    # Gradients are no parameters' cost.
    assert ("parameters" in shown) == any(cost.parameters for cost in total)
    assert f"{pair.rows[-1].ratio():.2f}×" in shown


def test_operators_of_a_network(pair):
    counted = count_flops("vit_ti16", image_size=32, by="operator")
    rows = {row.name: row.costs[0] for row in counted.rows if row.costs[0]}
    assert rows["total"].macs == counted.audits[0].macs
    assert rows["gelu"].elementwise == 12 * 8 * 5 * 768
    assert rows["_scaled_dot_product_flash_attention"].macs == 12 * 2 * 5 * 5 * 192


def test_ratios_need_both_sides():
    assert Row("x", (LayerCost("x", macs=6), LayerCost("x", macs=3))).ratio() == 2
    assert Row("x", (LayerCost("x", macs=6), None)).ratio() is None
    assert Row("x", (LayerCost("x", macs=6), LayerCost("x"))).ratio() is None


def test_the_audit_covers_what_it_is_given_and_explains_each_figure_of_the_paper(monkeypatch):
    names = ["resmlp_t12", "resmlp_t12.flop"]
    printed = audit_report._printed()
    assert len(printed) == 25
    monkeypatch.setattr(audit_report, "list_models", lambda: names)
    monkeypatch.setattr(audit_report, "STOCK_EXAMPLES", names[:1])
    monkeypatch.setattr(audit_report, "_printed", lambda: {name: printed[name] for name in names})
    seen = []
    text = audit_report.audit_catalogue(lambda given: [seen.append(name) or name for name in given])
    assert seen == names
    assert "| E(ResMLP-T12) | 1.562 | 1.6 | −2.37 % | 1.562 is printed as 1.6 |" in text
    assert "1 504 869 888" in text


def test_octic_networks_stand_beside_their_authors_counts():
    name = "vit_ti16.octic"
    model = build_on_meta(name)
    result = audit(model, name, inputs_for(model))
    (row,) = audit_report._octic_table([result]).rows
    assert tuple(row.values())[1:] == (929_608, 409_451_520, 380_550_144, 385_969_152)
    with pytest.raises(FlopbenchError, match="authors' definition"):
        audit_report._octic_table([replace(result, parameters=1)])


def test_a_figure_of_the_paper_that_is_missed_is_an_error():
    assert audit_report._reason("resmlp_t12", 3_046_000_000, "3.05", 0.001) == "within 1.5 %"
    with pytest.raises(FlopbenchError, match="unexplained"):
        audit_report._reason("resmlp_t12", 3_046_000_000, "3.1", -0.017)


def test_an_audit_with_gaps_is_refused():
    class Gap(nn.Module):
        def forward(self, x):
            return torch.cdist(x, x)

    result = audit(Gap(), "gap", Inputs(torch.zeros(1, 3, 4, 4, device="meta")))
    with pytest.raises(FlopbenchError, match="leaves out part of gap: cdist"):
        audit_report._complete(result)
