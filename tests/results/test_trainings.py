import json
from pathlib import Path

import pytest

from flopbench.results.measures import MEASURES, MIOU, TOP1
from flopbench.results.races import RacesFolder
from flopbench.results.trainings import EvaluationRecord, NetworkInfo, Scores
from tests.support.evaluations import make_evaluation

RECORDED = Path(__file__).parents[2] / "results"


def test_the_figure_that_decides_is_that_of_the_task():
    images, pixels = Scores(top1=0.9, nll=0.3), Scores(top1=0.9, nll=0.3, miou=0.0)
    assert (images.measure, images.figure) == (TOP1, 0.9)
    assert (pixels.measure, pixels.figure) == (MIOU, 0.0)
    assert [f"{MEASURES[task]} of {MEASURES[task].of}" for task in ("classification", "segmentation")] == [
        "top-1 of images",
        "mIoU of pixels",
    ]


BEFORE = [folder for folder in RECORDED.glob("race-*") if '"task"' not in (folder / "races.json").read_text()]


@pytest.mark.parametrize("folder", sorted(BEFORE), ids=lambda folder: folder.name)
def test_races_that_were_recorded_before_there_were_tasks_are_classifications(folder: Path):
    points = [point for trial in RacesFolder.open(folder).trials() for point in trial.points]
    assert {point.best.plain.measure for point in points} == {TOP1}
    assert all(point.best.plain.figure == point.best.plain.top1 for point in points)


def test_records_without_a_task_are_classifications():
    record = json.loads(make_evaluation().model_dump_json(by_alias=True))
    del record["task"]
    assert EvaluationRecord.model_validate(record).task == "classification"
    written = {"name": "vit_s16", "image_size": [8, 8], "num_classes": 4, "mean": [0.0], "std": [1.0]}
    assert NetworkInfo.model_validate(written).task == "classification"
