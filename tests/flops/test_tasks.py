"""Networks of every task: three counters agree, and counting gives the closed form of the blocks."""

import pytest

from flopbench import count_flops
from flopbench.errors import FlopbenchError
from flopbench.flops import build_on_meta
from flopbench.flops.audit import CLOSED_FORM, FLOP_COUNTER, FVCORE, audit, inclusive
from flopbench.flops.dispatch import observe
from flopbench.inputs import inputs_for

TASKS = [{"task": "depth"}, {"task": "segmentation", "decoder": "conv"}]
NETWORKS = [
    *(
        (f"{name}{version}", options)
        for name in ("vit_ti16", "convnext_t")
        for version in ("", ".flop")
        for options in TASKS
    ),
    ("vit_ti16.early_invariant", TASKS[0]),
    ("convnext_iso_s.hybrid", TASKS[1]),
    ("vit_ti16.tta", TASKS[1]),
    ("resmlp_t12.flop", {"task": "normals", "decoder": "conv"}),
    ("vit_ti16.octic", {"task": "normals", "decoder": "conv"}),
]


def said(value: object) -> str:
    return "-".join(value.values()) or "classification" if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=said)
def test_three_counts_agree_and_what_runs_is_the_mathematics(build, name, options):
    model, size = build(name, **options)
    # Many images, so that what is done to the weights does not show.
    result = audit(model, name, inputs_for(model, None, 64, size))
    assert set(result.forward) == {FVCORE, FLOP_COUNTER, CLOSED_FORM}
    for counts in (result.forward, result.backward):
        assert len({counted.macs for counted in counts.values()}) == 1
        assert all(counted.coverage == 1 and not counted.uncounted for counted in counts.values())
    assert result.ran_elementwise == pytest.approx(result.elementwise, rel=0.03)


@pytest.mark.parametrize("options", [{}, *TASKS], ids=said)
@pytest.mark.parametrize(("version", "order"), [("tta", 2), ("octic_tta", 8)])
def test_an_average_over_a_group_costs_its_order_times_the_network(build, version, order, options):
    (alone, size), (averaged, _) = (
        build(f"vit_ti16{suffix}", image_size=(32, 32), **options) for suffix in ("", f".{version}")
    )
    one, all_ = (audit(model, "vit", inputs_for(model, None, 2, size)) for model in (alone, averaged))
    assert all_.macs == order * one.macs
    assert all_.parameters == one.parameters
    # Moving images and answers is no arithmetic; what is summed is one operation for each answer.
    assert one.elementwise < all_.elementwise / order < 1.01 * one.elementwise + 8 * 2 * 10 * 32 * 32


def test_an_averaged_network_stands_beside_the_network_alone():
    counted = count_flops("vit_ti16.tta", task="depth", image_size=32)
    rows = {row.name: row.costs for row in counted.rows}
    assert not [name for name in rows if name.startswith("network.")]
    for name in ("blocks.0–11.attn", "head.readout"):
        alone, averaged = rows[name]
        assert alone
        assert averaged
        assert averaged.macs == 2 * alone.macs


RATIOS = {
    "vit_s16": {224: (1.85, 3.98), 512: (1.53, 2.28), 1024: (1.22, 1.41)},
    "vit_b16": {224: (1.92, 4.53), 512: (1.69, 2.98), 1024: (1.36, 1.75)},
    "vit_l16": {224: (1.94, 4.70), 512: (1.75, 3.29), 1024: (1.43, 1.95)},
}
"""MACs of the blocks of X over those of E(X) and of D8(X), by the side of the image."""


@pytest.mark.parametrize("name", RATIOS)
def test_what_the_blocks_save_at_each_resolution(name):
    def macs(version: str, side: int) -> int:
        model = build_on_meta(f"{name}{version}", image_size=side, task="features", depth=1)
        return inclusive(observe(model, inputs_for(model, None, 1, (side, side))))["blocks"]

    for side, expected in RATIOS[name].items():
        plain = macs("", side)
        assert [round(plain / macs(version, side), 2) for version in (".flop", ".octic")] == list(expected)


def test_names_are_counted_with_the_options_of_cells():
    counted = count_flops("vit_ti16.flop", task="segmentation", num_classes=5, image_size=(32, 64), width=64)
    assert counted.labels == ("ViT-64/16", "E(ViT-64/16)")
    (head,) = (row for row in counted.rows if row.name == "head.readout")
    # Of 2 × 4 cells; E(X) reads the symmetric half.
    assert [cost.macs for cost in head.costs if cost] == [8 * 64 * 5, 8 * 32 * 5]
    assert "segmentation" in counted.caption


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("vit_ti16", {"task": "colours"}, "task: input should be 'classification', .*, got 'colours'"),
        ("vit_ti16", {"decoder": "conv"}, "task classification has no decoder"),
        ("layer_norm_192.flop", {"task": "depth"}, "has no task depth"),
        ("timm:deit3_small_patch16_224", {"task": "depth"}, "has no task depth"),
        ("vit_ti16.tta", {"task": "features"}, "has no features"),
        ("vit_ti16.early_invariant", {"task": "normals"}, "no linear decoder makes normals that move"),
        ("vit_ti16", {"colours": 3}, "unknown argument 'colours'"),
    ],
)
def test_what_no_network_has_is_one_line(name, options, complaint):
    with pytest.raises(FlopbenchError, match=f"^{complaint}[^\n]*$|^[^\n]* {complaint}[^\n]*$"):
        count_flops(name, image_size=32, **options)
