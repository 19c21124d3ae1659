"""Trainings, shown and reported."""

from pathlib import Path

import numpy as np
import pytest

from flopbench import load
from flopbench.errors import FlopbenchError
from flopbench.recipes import Expected
from flopbench.report.pictures import draw
from flopbench.report.trainings import Trainings
from flopbench.results.training_folder import TrainingFolder
from flopbench.results.trainings import Role, TrainingInfo
from tests.support.races import make_races

HOSTILE = '<script>alert(1)</script>|`x`**b**"'


def make_training(path: Path, *, role: Role = "baseline", points: int | None = None, **changes) -> Path:
    """The folder of a training as a trial of a synthetic race went, or of as many of its points."""
    races, trials = make_races(("digits",), rivals=(), seeds=1)
    (race,), trial = races.races, next(one for one in trials if one.entrant == role)
    (entrant,) = (one for one in race.entrants if one.key == role)
    info = {
        **{key: getattr(entrant, key) for key in ("name", "label", "parameters", "macs")},
        **{key: getattr(race, key) for key in ("recipe", "data", "validation")},
        **{key: getattr(races, key) for key in ("created", "environment")},
        "id": path.name,
        "command": f"flopbench train cpu-small --model {entrant.name} --data digits",
        "seed": 0,
        "recipe_digest": race.recipe.digest,
        "steps": trial.points[-1].step,
    }
    folder = TrainingFolder.create(path, TrainingInfo(**{**info, **changes}))
    for point in trial.points[:points]:
        folder.append(point)
    return path


@pytest.fixture
def pair(tmp_path):
    return load(*(make_training(tmp_path / role, role=role) for role in ("baseline", "candidate")))


def test_a_folder_is_opened_as_what_it_is_and_says_what_it_came_to(pair):
    assert isinstance(pair, Trainings)
    first, second = (answer.headline for answer in pair.answers)
    assert "ViT-Ti/16 by cpu-small on digits, seed 0: the averaged weights have 96.9 % top-1 on" in first
    assert "E(ViT-Ti/16) by cpu-small on digits" in second


def test_what_was_reached_elsewhere_stands_beside_a_training_of_imagenet_that_ended(tmp_path):
    plain = TrainingFolder.open(make_training(tmp_path / "plain")).info
    recipe = plain.recipe.model_copy(
        update={"expected": {plain.name: Expected(top1=90.0, source="Somebody")}}
    )
    validation = plain.validation.model_copy(update={"classes": 1000})

    def headline(name: str, **how) -> str:
        return load(make_training(tmp_path / name, recipe=recipe, **how)).answers[0].headline

    said = "Somebody has 90.0 % by this recipe: a difference of +6.9 points."
    assert headline("whole", validation=validation).endswith(said)
    assert "Somebody" not in headline("digits")
    assert "Somebody" not in headline("part", validation=validation, points=2)


def test_the_best_evaluation_is_said_to_be_chosen(tmp_path):
    path = make_training(tmp_path / "falls")
    points = TrainingFolder.open(path).points()
    (path / TrainingFolder.lines_file).write_text("")
    for one, other in zip(points, (*points[:-2], points[-1], points[-2]), strict=True):
        changes = {"accuracy": other.accuracy, "ema": other.ema}
        TrainingFolder.open(path).append(one.model_copy(update=changes))
    remark = load(path).answers[0].points[-1]
    best = points[-2].step
    assert remark.startswith(
        f"The best evaluation is that after {best} steps, with 96.9 %, chosen by the images"
    )


def test_the_curve_goes_through_every_evaluation(pair):
    (drawing,) = draw(pair.drawings)
    accuracy, loss = drawing.figure.axes
    points = pair.folders[0].points()
    seconds = [point.seconds for point in points]
    lines = [np.asarray(line.get_xydata()) for line in accuracy.lines]
    # Of each training the weights themselves, and their average.
    assert len(lines) == 4
    assert lines[0][:, 1] == pytest.approx([100 * point.accuracy.plain.top1 for point in points])
    assert lines[1] == pytest.approx(np.array([seconds, [100 * p.best.plain.top1 for p in points]]).T)
    assert np.asarray(loss.lines[0].get_xydata())[:, 1] == pytest.approx([point.loss for point in points])
    assert [line.get_text() for line in drawing.figure.legends[0].get_texts()] == [
        "ViT-Ti/16 on digits, seed 0",
        "E(ViT-Ti/16) on digits, seed 0",
    ]


def test_a_training_without_an_evaluation_has_no_curve(tmp_path):
    begun = load(make_training(tmp_path / "begun", points=0))
    assert begun.pictures == ()
    with pytest.raises(FlopbenchError, match="there is no picture: there is no evaluation yet"):
        begun.plot()
    assert begun.report(tmp_path / "reports").html.is_file()


def test_names_are_shown_as_they_are(tmp_path):
    path = make_training(tmp_path / "hostile", label=HOSTILE, command=HOSTILE)
    files = load(path).report(tmp_path / "reports")
    page = files.html.read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert len(files.pictures) == 2
