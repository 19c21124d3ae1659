"""Folders of trainings: what is written is whole, whatever ends the process that writes."""

from pathlib import Path

import pytest

from flopbench.errors import FlopbenchError
from flopbench.results.folder import RunExistsError
from flopbench.results.training_folder import TrainingFolder
from flopbench.results.trainings import Accuracy, DataInfo, Point, Scores, TrainingInfo
from tests.support.disks import files_of_at_most
from tests.support.races import recipe
from tests.support.runs import CPU, environment

INFO = TrainingInfo(
    id="train-vit_ti16-digits-cpu-20261127-180000",
    created="2026-11-27T18:00:00+00:00",
    command="flopbench train cpu-small --model vit_ti16 --data digits",
    name="vit_ti16",
    label="ViT-Ti/16",
    seed=0,
    recipe=recipe(),
    recipe_digest=recipe().digest,
    data=DataInfo(name="digits", split="train", images=1437, classes=10),
    validation=DataInfo(name="digits", split="validation", images=360, classes=10),
    steps=110,
    parameters=5_717_416,
    macs=3_900_000_000,
    environment=environment(CPU),
)


def point(step: int, top1: float = 0.5) -> Point:
    scores = Scores(top1=top1, top5=0.9, nll=1.0)
    accuracy = Accuracy(images=360, plain=scores, mirrored=scores, flip_consistency=1.0)
    return Point(step=step, samples=128 * step, seconds=float(step), macs=step, accuracy=accuracy)


def test_points_are_read_back_and_the_later_line_of_a_step_counts(tmp_path: Path):
    TrainingFolder.create(tmp_path / "training", INFO)
    folder = TrainingFolder.open(tmp_path / "training")
    for one in (point(10), point(20), point(10, top1=0.6)):
        folder.append(one)
    assert folder.info == INFO
    assert folder.points() == [point(10, top1=0.6), point(20)]


def test_what_a_killed_process_left_is_taken_away(tmp_path: Path):
    folder = TrainingFolder.create(tmp_path / "training", INFO)
    folder.append(point(10))
    file = folder.path / "points.jsonl"
    file.write_bytes(file.read_bytes() + b'{"step": 20, "sam')
    (folder.path / ".checkpoint.pt.x1y2").write_bytes(b"half")
    (folder.path / "checkpoint.pt").write_bytes(b"whole")
    with pytest.warns(UserWarning, match="set aside in points.torn"):
        folder.tidy()
    folder.append(point(20))
    assert folder.points() == [point(10), point(20)]
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "checkpoint.pt", "points.jsonl", "points.torn", "training.json"
    ]  # fmt: skip


def test_a_full_disk_leaves_whole_lines_alone(tmp_path: Path):
    folder = TrainingFolder.create(tmp_path / "training", INFO)
    folder.append(point(10))
    before = (folder.path / "points.jsonl").read_bytes()
    with files_of_at_most(len(before) + 20), pytest.raises(OSError, match=r"large|space"):
        folder.append(point(20))
    assert (folder.path / "points.jsonl").read_bytes() == before
    folder.append(point(20))
    assert folder.points() == [point(10), point(20)]


def test_a_folder_that_could_not_be_begun_is_not_there(tmp_path: Path):
    with files_of_at_most(20), pytest.raises(OSError, match=r"large|space"):
        TrainingFolder.create(tmp_path / "training", INFO)
    assert list(tmp_path.iterdir()) == []


def test_one_process_trains_in_a_folder(tmp_path: Path):
    folder = TrainingFolder.create(tmp_path / "training", INFO)
    other = TrainingFolder.open(folder.path)
    with folder.locked(), pytest.raises(FlopbenchError, match="trained by another flopbench"), other.locked():
        pass


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(FlopbenchError, match=r"is not a training: it has no training\.json"):
        TrainingFolder.open(tmp_path)
    TrainingFolder.create(tmp_path / "training", INFO)
    with pytest.raises(RunExistsError, match="exists already"):
        TrainingFolder.create(tmp_path / "training", INFO)
