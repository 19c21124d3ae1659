"""Reports of several resolutions, of dense tasks, and over test-time augmentation."""

from typing import Any

import pytest

from flopbench.report.along import RESOLUTION
from flopbench.report.cells import measured, models, rows_of, setting_words
from flopbench.report.findings import answer
from flopbench.report.pictures import draw
from flopbench.report.pictures.along import speedup_along
from flopbench.report.pictures.gain import gain_against_macs
from flopbench.report.tables import MODEL_COLUMNS, runs_markdown, runs_table
from flopbench.results import Run, to_frame
from tests.support.runs import CPU, make_run

SIZES = [224, "224x448", 512, 1024]
PAIRS = ("vit_s16.flop", "vit_s16.flop@vit_s16.tta")
ONE = {"device": CPU, "batch_sizes": (1,), "passes": ("forward",), "modes": ("compile",), "overhead": 0.05}


def rows(run: Run):
    return rows_of(to_frame([run]))


def said(run: Run):
    cells = measured(rows(run))
    return answer(run.info.id, "a CPU", cells, len(cells))


def ceiling(axis: Any) -> list[tuple[float, float]]:
    """The last line through all resolutions that is drawn."""
    return [line.get_xydata().tolist() for line in axis.lines if len(line.get_xdata()) == len(SIZES)][-1]


@pytest.fixture(scope="module")
def resolutions(tmp_path_factory) -> Run:
    # In no order: lines are in that of the pixels.
    path = tmp_path_factory.mktemp("runs") / "resolutions"
    return make_run(path, pairs=PAIRS, axes={"image_sizes": [SIZES[2], SIZES[0], SIZES[3], SIZES[1]]}, **ONE)


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Run:
    axes = {
        "image_sizes": [512],
        "num_classes": [150],
        "tasks": ["segmentation", "depth"],
        "decoders": ["linear", "conv"],
    }
    path = tmp_path_factory.mktemp("runs") / "dense"
    return make_run(path, pairs=("vit_s16.flop", "convnext_t.flop"), axes=axes, **ONE)


def test_speedup_against_resolution_has_its_ceiling_at_every_point(resolutions):
    (drawing,) = draw(lambda: [speedup_along(RESOLUTION, resolutions, measured(rows(resolutions)), "")])
    plain, rival = drawing.figure.axes
    assert rival.get_title("left") == "forward, over test-time augmentation"
    ours, over_averaged = ceiling(plain), ceiling(rival)
    assert [x for x, _ in ours] == pytest.approx([224, (224 * 448) ** 0.5, 512, 1024])
    ceilings = [y for _, y in ours]
    assert ceilings == sorted(ceilings, reverse=True)
    # Averaging costs twice the network, whatever the resolution.
    assert [y for _, y in over_averaged] == pytest.approx([2 * y for y in ceilings], rel=1e-3)
    assert [tick.get_text() for tick in plain.get_xticklabels()][1:3] == ["224×448", "512×512"]


@pytest.mark.parametrize(
    ("slow", "where"),
    [
        ({}, "E(ViT-S/16) pays at every resolution measured, from 224×224 to 1024×1024: "),
        ({"vit_s16.flop/*/1024x1024": 2.0}, "E(ViT-S/16) pays up to 512×512 pixels: "),
        ({"vit_s16.flop/*/compile": 9.0}, "E(ViT-S/16) pays from 224×448 pixels on: "),
        ({"vit_s16.flop/*x512": 9.0}, "pays at 224×224 pixels, 224×448 pixels and 1024×1024 pixels alone: "),
        (
            {"vit_s16.flop/*": 9.0},
            "pays at no resolution measured; at the largest, 1024×1024, it costs time: ",
        ),
    ],
)
def test_it_is_said_where_it_pays(tmp_path, slow, where):
    run = make_run(tmp_path / "r", pairs=PAIRS, axes={"image_sizes": SIZES}, slowdown=slow, **ONE)
    (sentence,) = [p for p in said(run).points if p.startswith("Forward at batch 1, E(ViT-S/16) pays")]
    assert where in sentence
    assert "1.83×) at 224×224 pixels and " in sentence
    assert sentence.endswith(") at 1024×1024 pixels.")


def test_what_is_not_halved_follows_from_the_counts(resolutions):
    found = said(resolutions)
    assert "all 4 candidates (counted per resolution) run faster" in found.headline
    (sentence,) = [point for point in found.points if "not halved" in point]
    by_size = {row["image_size"]: row for row in rows(resolutions) if row["pair"] == "vit_s16.flop"}
    for size in ("224×224", "1024×1024"):
        x, e = (by_size[size][f"{role}_macs"] for role in ("baseline", "candidate"))
        assert f"{2 * e / x - 1:.0%}".replace("%", " %") in sentence
    assert sentence.endswith("; from 1024×1024 pixels on more than half.")


def test_the_rival_has_the_same_symmetry_and_a_sentence_of_its_own(resolutions, tmp_path):
    rival = "E(ViT-S/16), against TTA(ViT-S/16), which has the same symmetry by 2 passes, pays at every"
    assert sum(rival in point for point in said(resolutions).points) == 1
    found = said(make_run(tmp_path / "r", pairs=PAIRS, **ONE))
    # That it is far faster than two passes is no news, and no headline.
    assert "of the MACs of ViT-S/16" in found.headline
    (sentence,) = [point for point in found.points if "TTA" in point]
    assert "of the MACs of TTA(ViT-S/16), which has the same symmetry by 2 passes, and runs" in sentence
    octic = said(make_run(tmp_path / "o", pairs=("vit_s16.octic@vit_s16.tta",), **ONE))
    assert "same symmetry" not in octic.headline


def test_networks_are_told_apart_by_what_no_label_says(dense):
    cells = measured(rows(dense))
    assert setting_words(cells).startswith("fp32, compiled, 512×512 pixels, 150 classes")
    labels = [row["pair_label"] for row in cells]
    assert labels[:2] == [
        "E(ViT-S/16) · segmentation · linear decoder",
        "E(ViT-S/16) · segmentation · conv decoder",
    ]
    assert len(set(labels)) == len(labels) == 8
    found = said(dense)
    assert "all 8 candidates run faster" in found.headline
    assert any(point.startswith("E(ConvNeXt-T) · depth · conv decoder needs 50 %") for point in found.points)


def test_tables_have_columns_for_it(dense, resolutions):
    header = runs_markdown(measured(rows(dense))).splitlines()[0]
    assert "| task | decoder |" in header
    assert "| image |" not in header
    assert "| image |" in runs_markdown(measured(rows(resolutions))).splitlines()[0]
    # Two networks in each of four tasks and decoders, each with MACs of its own.
    counted = models(rows(dense))
    assert len(counted) == 2 * 2 * 4
    assert "| model | task | decoder |" in runs_table("Models", counted, MODEL_COLUMNS).markdown()


def test_what_classifies_has_no_decoder(tmp_path):
    axes = {"tasks": ["classification", "segmentation"]}
    run = make_run(tmp_path / "r", pairs=("vit_s16.flop",), axes=axes, **ONE)
    assert [row["decoder"] for row in rows(run)] == [None, "linear"]
    assert [row["pair_label"] for row in rows(run)] == [f"E(ViT-S/16) · {task}" for task in axes["tasks"]]


def test_gains_are_shown_at_one_resolution_and_published_ones_beside_classification(resolutions, dense):
    at_one, of_dense = draw(lambda: [gain_against_macs([r], measured(rows(r))) for r in (resolutions, dense)])
    assert "224×224" in at_one.alt
    assert "512×512" not in at_one.alt
    assert "published" in at_one.caption
    assert "published" not in of_dense.caption
