"""The pictures of races: what is drawn is what the outcome says."""

import numpy as np
import pytest

from flopbench.report.labels import version_of
from flopbench.report.pictures import draw, draw_all
from flopbench.report.pictures.race import SPENDINGS, looks_of, of_races
from flopbench.report.pictures.style import version_look
from flopbench.report.race_outcome import outcomes_of
from flopbench.report.races import RaceResult
from tests.support.races import make_races, write_races

TASKS = ("classification", "segmentation")

HOSTILE = '<script>alert(1)</script>|`x`**b**"'


def drawn(*args, **options):
    """The pictures of synthetic races by their names, and what came of the races."""
    info, trials = make_races(*args, **options)
    outcomes = outcomes_of(info, trials)
    pictures = draw(lambda: of_races(outcomes, info.environment.device_name))
    return {picture.name: picture for picture in pictures}, outcomes


def spots_of(line):
    """Every point of a line, rounded."""
    return {(round(float(x), 2), round(float(y), 2)) for x, y in np.asarray(line.get_xydata())}


def spots(axis):
    """Every point of every line."""
    return set().union(*map(spots_of, axis.lines))


@pytest.fixture(scope="module")
def three():
    return drawn()


def test_a_picture_per_question_with_a_panel_per_race(three):
    pictures, _ = three
    assert list(pictures) == [
        "accuracy-differences",
        "accuracy-against-time",
        "accuracy-against-macs",
        "accuracy-against-steps",
        "accuracy-frontier",
    ]
    for picture in pictures.values():
        titles = [axis.get_title(loc="left") for axis in picture.figure.axes]
        assert titles == [f"ViT-Ti/16\n{name}" for name in ("animal-shape-mnist", "fashion-mnist", "digits")]


@pytest.mark.parametrize("spending", SPENDINGS, ids=lambda spending: spending.axis)
def test_each_seed_their_mean_and_the_time_to_the_target_are_drawn(three, spending):
    pictures, outcomes = three
    for axis, outcome in zip(pictures[spending.name].figure.axes, outcomes, strict=True):
        ends = [end for standing in outcome.standings.values() for end in standing.at_end(spending.axis)]
        size, _ = spending.unit(max(ends))
        seen, looks = spots(axis), looks_of(outcome)
        for standing in outcome.standings.values():
            ends = [(getattr(end, spending.axis) / size, 100 * end.best.plain.top1) for end in standing.ends]
            mean = tuple(np.mean(ends, axis=0))
            assert {tuple(round(float(x), 2) for x in end) for end in [*ends, mean]} <= seen
            there = [value for value in standing.to_target(spending.axis).values() if value is not None]
            met = len(there) == len(standing.trials)
            mark = round(float(np.mean(there)) / size, 2) if there else -1.0
            marks = [line for line in axis.lines if line.get_marker() == looks[standing.entrant.key].marker]
            assert [spots_of(line) for line in marks] == [{(mark, round(100 * outcome.target, 2))}] * met


def test_x_and_e_look_as_everywhere_and_no_two_alike(three):
    looks = looks_of(three[1][0])
    assert looks["baseline"] == version_look(version_of("ViT-Ti/16"))
    assert looks["candidate"] == version_look(version_of("E(ViT-Ti/16)"))
    assert len(looks) == 6
    for part in ("color", "marker"):
        assert len({getattr(look, part) for look in looks.values()}) == 6


def test_differences_have_their_intervals_and_say_which_are_told_apart(three):
    pictures, outcomes = three
    axis, outcome = pictures["accuracy-differences"].figure.axes[0], outcomes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert len(names) == len(outcome.comparisons)
    assert names[0] == "E(X) − X\nat equal steps"
    assert "mirrored X + TTA\nat equal steps and twice the cost" in names[6]
    for place, (one, container) in enumerate(zip(outcome.comparisons, axis.containers, strict=True)):
        line, _, (bars,) = container
        assert np.asarray(line.get_xydata()).tolist() == [[one.points.value, place]]
        (segment,) = bars.get_segments()
        assert segment[:, 0].tolist() == pytest.approx([one.points.low, one.points.high])
        assert (line.get_markerfacecolor() == "white") is (one.verdict == "not told apart")


def test_the_frontier_joins_those_that_none_beats(three):
    (axis, *_) = three[0]["accuracy-frontier"].figure.axes
    *_, frontier = axis.lines
    places = np.asarray(frontier.get_xydata())
    assert (np.diff(places, axis=0) > 0).all()
    # Shallow X is done soonest, then E(X), and the wide E(X) is the most accurate.
    assert len(places) == 3


def test_one_race_of_one_seed_has_no_interval():
    pictures, _ = drawn(("digits",), rivals=(), seeds=1)
    assert len(pictures) == 5
    differences = pictures["accuracy-differences"]
    assert differences.caption.endswith("One seed has no interval.")
    assert "target not met" in pictures["accuracy-against-time"].alt
    assert len(pictures["accuracy-against-time"].figure.axes) == 1


def test_networks_of_several_races_are_called_x_and_e():
    both = [
        drawn(("digits",), network=network, rivals=(), seeds=2)[1][0] for network in ("ViT-S/16", "ViT-B/16")
    ]
    time = next(one for one in draw(lambda: of_races(both, "a CPU")) if one.name == "accuracy-against-time")
    assert [word.get_text() for word in time.figure.legends[0].get_texts()] == ["X", "E(X)"]
    titles = [axis.get_title(loc="left") for axis in time.figure.axes]
    assert titles == ["ViT-S/16\ndigits", "ViT-B/16\ndigits"]


def test_races_without_a_training_that_ended_have_no_picture():
    pictures, _ = drawn(("digits",), rivals=(), seeds=1, left_out=2)
    assert pictures == {}
    failed = {("baseline", 0): "failed", ("candidate", 0): "failed"}
    assert drawn(("digits",), rivals=(), seeds=1, statuses=failed)[0] == {}


def test_names_are_drawn_as_they_are_for_pages_and_phones():
    info, trials = make_races((HOSTILE,), rivals=(), seeds=2)
    outcomes = outcomes_of(info, trials)
    for picture in draw_all(lambda: of_races(outcomes, HOSTILE)):
        assert "<script>alert" not in picture.svg + picture.phone
        assert "&lt;script&gt;alert" in picture.svg
        assert picture.png.startswith(b"\x89PNG")


def test_the_page_has_every_picture_and_folds_what_single_races_say(tmp_path):
    files = RaceResult.open(write_races(tmp_path / "races", *make_races(seeds=2))).report(tmp_path)
    page = files.html.read_text(encoding="utf-8")
    assert page.count('class="panel"') == 5
    first, *others = page.split('<div class="answer">')[1:]
    assert "<details>" not in first
    assert [other.count("<summary>In detail</summary>") for other in others] == [1, 1, 1]
    assert len(files.pictures) == 10
    text = files.markdown.read_text(encoding="utf-8")
    assert text.count("<details><summary>In detail</summary>") == text.count("</details>") == 3


def test_networks_by_data_sets_are_a_grid():
    sets = ("animal-shape-mnist", "digits")
    races = [
        one
        for network in ("ViT-S/16", "ViT-B/16")
        for one in drawn(sets, network=network, rivals=(), seeds=2)[1]
    ]
    for picture in draw(lambda: of_races(races, "a CPU")):
        places = [place for axis in picture.figure.axes if (place := axis.get_subplotspec())]
        assert [(place.rowspan.start, place.colspan.start) for place in places] == [
            (0, 0),
            (0, 1),
            (1, 0),
            (1, 1),
        ]


def test_each_panel_names_the_measure_of_its_race():
    races = [drawn(("digits",), rivals=(), seeds=2, task=task)[1][0] for task in TASKS]
    pictures = {one.name: one for one in draw(lambda: of_races(races, "a CPU"))}
    for name, words in (("accuracy-against-time", "{} (%)"), ("accuracy-frontier", "{} at the end (%)")):
        labels = [axis.get_ylabel() for axis in pictures[name].figure.axes]
        assert labels == [words.format("top-1"), words.format("mIoU")]
    differences = pictures["accuracy-differences"]
    labels = [axis.get_xlabel() for axis in differences.figure.axes]
    assert labels == ["percentage points of top-1", "percentage points of mIoU"]
    assert differences.alt.startswith("Differences of top-1 accuracy and mIoU in")
    assert drawn(("digits",), rivals=(), task="segmentation")[0]["accuracy-frontier"].alt.startswith(
        "mIoU at"
    )
