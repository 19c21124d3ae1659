"""Evaluations, shown and reported."""

import json
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt

from flopbench.errors import FlopbenchError
from flopbench.report.evaluations import Evaluations
from flopbench.report.labels import read
from flopbench.report.pictures import draw
from flopbench.report.table import Table
from flopbench.results.trainings import EvaluationRecord
from flopbench.symmetries import registry
from flopbench.symmetries.registry import About
from tests.support.evaluations import make_evaluation, write_evaluation

HOSTILE = '<script>alert(1)</script>|`x`**b**"[l](http://e.com)"'


@pytest.fixture(scope="module")
def pair():
    return Evaluations(
        [
            make_evaluation("vit_s16", top1=0.78, averaged=True),
            make_evaluation("vit_s16.flop", top1=0.80),
        ]
    )


def test_one_evaluation_says_what_was_right_at_which_speed():
    (answer,) = Evaluations([make_evaluation("vit_s16", top1=0.78, averaged=True)]).answers
    assert answer.headline == (
        "On an Intel Xeon @ 2.80 GHz, of the 10\u202f000 images of photographs (validation) ViT-S/16 gets "
        "78.0 % (95 % interval 77.2 % to 78.8 %) right, at 60.0 images per second."
    )
    mirrored, averaged = answer.points
    assert "it gets 77.0 % right" in mirrored
    assert "93.00 %" in mirrored
    assert "78.6 % right (+0.6 points), at twice the cost, 30.0 images per second" in averaged


def test_a_pair_is_compared_on_the_same_images_alone(pair):
    (answer,) = pair.answers
    assert "E(ViT-S/16) gets the most right, 80.0 %" in answer.headline
    (said,) = (point for point in answer.points if " against " in point)
    assert said.startswith("E(ViT-S/16) against ViT-S/16: +2.0 points of top-1 (95 % interval +0.9 to +3.1,")
    assert said.endswith("1.50× as many images per second.")
    apart = Evaluations([make_evaluation("vit_s16"), make_evaluation("vit_s16.flop", data="digits")])
    assert len(apart.answers) == 2
    assert not any(" against " in point for answer in apart.answers for point in answer.points)


def test_speeds_of_unlike_settings_are_not_compared():
    unlike = Evaluations([make_evaluation("vit_s16"), make_evaluation("vit_s16.flop", batch_size=1)])
    (said,) = (point for point in unlike.answers[0].points if " against " in point)
    assert "as many images per second" not in said


def test_what_ran_in_several_ways_is_compared_way_by_way():
    ways = [("openvino", "int8"), ("onnxruntime", "fp32")]
    shown = Evaluations(
        make_evaluation(name, id=f"{name}-{mode}", mode=mode, dtype=dtype)
        for name in ("vit_s16", "vit_s16.flop")
        for mode, dtype in ways
    )
    (answer,) = shown.answers
    assert [point.split(":")[0] for point in answer.points[:2]] == [
        "E(ViT-S/16) in int8 in OpenVINO against ViT-S/16 in int8 in OpenVINO",
        "E(ViT-S/16) in fp32 in ONNX Runtime against ViT-S/16 in fp32 in ONNX Runtime",
    ]
    assert all("1.50× as many images per second" in point for point in answer.points[:2])
    accuracy = shown.tables()[0]
    assert isinstance(accuracy, Table)
    assert {"dtype", "mode"} <= {column.header for column in accuracy.columns}


def test_the_frame_has_a_row_per_evaluation(pair):
    frame = pair.frame()
    assert frame["label"].tolist() == ["ViT-S/16", "E(ViT-S/16)"]
    assert frame["averaged_throughput"].tolist() == [30.0, 45.0]
    assert frame["averaged_top1"].isna().tolist() == [False, True]
    assert json.loads(pair.formatted("json"))[0]["top1_low"] == pytest.approx(0.7718, abs=1e-4)


def test_what_is_alike_is_not_shown_twice(pair):
    shown = pair.formatted("markdown")
    assert "photographs" not in shown
    assert "photographs" in Evaluations(pair.records[:1]).formatted("markdown")


def test_folders_are_opened_and_others_refused(tmp_path, pair):
    folders = [write_evaluation(tmp_path / record.name, record) for record in pair.records]
    assert Evaluations.open(*folders).records == pair.records
    with pytest.raises(FlopbenchError, match="nowhere is not an evaluation: it has no"):
        Evaluations.open("nowhere")
    with pytest.raises(FlopbenchError, match="the evaluations of a report must differ"):
        Evaluations.open(*folders, folders[0])
    with pytest.raises(FlopbenchError, match="at least one evaluation"):
        Evaluations([])


def test_the_report_has_its_files(tmp_path, pair):
    files = pair.report(tmp_path)
    text = files.markdown.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (files.markdown.parent / link).is_file(), link
    assert "flopbench evaluate vit_s16.flop" in text
    assert "NLL the mean negative log-likelihood" in text


def test_names_are_shown_as_they_are_and_nothing_else(tmp_path):
    record = make_evaluation("vit_s16", data=HOSTILE, weights=HOSTILE, label=HOSTILE)
    files = Evaluations([record]).report(tmp_path)
    rendered = MarkdownIt("commonmark").enable("table").render(files.markdown.read_text(encoding="utf-8"))
    page = files.html.read_text(encoding="utf-8")
    for text in (rendered, page):
        assert "<script>alert" not in text
        assert "<strong>b</strong>" not in text
        assert 'href="http://e.com' not in text
    assert "&lt;script&gt;alert(1)" in page


def drawn(*records):
    (drawing,) = draw(Evaluations(records).drawings)
    return drawing


def test_the_picture_has_what_was_measured(pair):
    drawing = drawn(*pair.records)
    (axis,) = drawing.figure.axes
    spots = {
        (round(float(x), 1), round(float(y), 1))
        for line in axis.lines
        for x, y in np.asarray(line.get_xydata())
    }
    # Of X: images, mirror images, and both at twice the time. Of E(X) both kinds of images are alike.
    assert {(16.7, 78.0), (16.7, 77.0), (33.3, 78.6), (11.1, 80.0)} <= spots
    assert axis.get_ylabel() == "measured top-1 (%)"
    assert "ViT-S/16 on photographs: 78.0 %, mirrored 77.0 %, 16.7 ms" in drawing.alt
    assert "a network runs twice" in drawing.caption
    assert "a network runs twice" not in drawn(make_evaluation("vit_s16")).caption


def test_the_picture_has_a_panel_per_data_set_and_needs_a_time():
    names = ["photographs", "digits"]
    drawing = drawn(*(make_evaluation("vit_s16", data=name) for name in names))
    assert [axis.get_title(loc="left").partition(" (")[0] for axis in drawing.figure.axes] == names
    untimed = Evaluations([make_evaluation("vit_s16", throughput=None)])
    assert untimed.pictures == ()
    with pytest.raises(FlopbenchError, match="there is no picture: no evaluation was timed"):
        untimed.plot()


def test_a_record_tells_what_its_symmetries_are_called(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {**registry._registered})
    assert read("U(ViT-S/16)") is None
    record = make_evaluation("vit_s16.flop", label="U(ViT-S/16)", top1=0.8)
    again = EvaluationRecord.model_validate_json(
        record.model_copy(update={"symmetries": (About("upside_down", ("U",), 2),)}).model_dump_json()
    )
    (answer,) = Evaluations([make_evaluation("vit_s16"), again]).answers
    assert answer.points[0].startswith("U(ViT-S/16) against ViT-S/16: +2.0 points")


def test_a_segmentation_has_miou_without_an_interval_and_pixels():
    x = make_evaluation("vit_s16", top1=0.58, averaged=True, task="segmentation")
    e = make_evaluation("vit_s16.flop", top1=0.60, task="segmentation")
    (answer,) = Evaluations([x, e]).answers
    assert (
        "on the 10\u202f000 images of photographs (validation) E(ViT-S/16) has the highest mIoU, 60.0 %, at"
        in (answer.headline)
    )
    compared, own, _ = answer.points
    assert compared.startswith("E(ViT-S/16) against ViT-S/16: +2.0 points of mIoU, and 1.50×")
    assert own.startswith(
        "ViT-S/16 has 58.0 % mIoU, at 60.0 images per second. On the mirror images it has 57.0 %"
    )
    assert "93.00 % of the pixels and their mirror images" in own
    assert "it has 58.6 % mIoU (+0.6 points), at twice the cost" in own
    assert "interval" not in " ".join([answer.headline, *answer.points])
    shown = Evaluations([x]).formatted("markdown")
    assert "| mIoU | pixels right |" in shown
    assert "top-1" not in shown
    assert drawn(x).figure.axes[0].get_ylabel() == "measured mIoU (%)"
    assert "Bars" not in drawn(x).caption


def test_evaluations_of_two_tasks_are_not_compared():
    both = Evaluations([make_evaluation("vit_s16"), make_evaluation("vit_s16.flop", task="segmentation")])
    assert len(both.answers) == 2
    shown = both.formatted("markdown")
    assert "top-1 [95 % interval]" in shown.replace("\\", "")
    assert "mIoU" in shown
    labels = [axis.get_ylabel() for axis in drawn(*both.records).figure.axes]
    assert labels == ["measured top-1 (%)", "measured mIoU (%)"]
