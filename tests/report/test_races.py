"""Races as one object: in terminals and notebooks, as figures, tables and words, whatever came of them."""

from pathlib import Path

import pytest

from flopbench.errors import FlopbenchError
from flopbench.report.races import RaceResult
from flopbench.report.table import Table
from tests.support.races import MACS, make_races, write_races
from tests.support.runs import H200


@pytest.fixture
def result(tmp_path: Path):
    def made(*args, **options) -> RaceResult:
        return RaceResult.open(write_races(tmp_path / "races", *make_races(*args, **options)))

    return made


def table(found: RaceResult, title: str) -> Table:
    (one,) = (part for part in found.tables() if isinstance(part, Table) and part.title == title)
    return one


def said(found: RaceResult) -> str:
    return "\n".join(
        line for answer in found.answers for line in (answer.headline, *answer.best, *answer.points)
    )


def lines(shown: str, *words: str) -> list[str]:
    return [line for line in shown.replace("\u00a0", " ").splitlines() if all(word in line for word in words)]


def test_all_races_together_come_first_then_each(result):
    answers = result().answers
    assert [answer.run for answer in answers] == [
        "races-cpu-20261127-120000",
        "vit_ti16.flop/animal-shape-mnist",
        "vit_ti16.flop/fashion-mnist",
        "vit_ti16.flop/digits",
    ]
    assert answers[0].headline == (
        "On an Intel Xeon @ 2.80 GHz, of 3 races after the same steps by the same recipe, the symmetric "
        "network is ahead of its baseline in 1, is behind it in 1 and cannot be told apart from it in 1."
    )
    assert answers[0].points[0] == (
        "E(ViT-Ti/16) on animal-shape-mnist: +3.2 points (95 % interval +1.6 to +4.7), ahead."
    )


def test_who_is_ahead_by_how_much_on_which_data(result):
    first, second, third = (answer.headline for answer in result().answers[1:])
    assert "On animal-shape-mnist (1 000 images to validate with, recipe cpu-small), E(ViT-Ti/16) is" in first
    assert "3.2 points above ViT-Ti/16 (95 % interval 1.6 to 4.7): 93.2 % top-1 against 90.1 %" in first
    assert "cannot be told apart (−0.3 points, 95 % interval −1.9 to +1.3)" in second
    assert "is 16.7 points below ViT-Ti/16 (95 % interval 15.3 to 18.0)" in third


LOSES = "An invariant network loses here, as expected where labels depend on orientation."


def test_the_negative_control_is_called_so_where_the_figures_show_it(result):
    found = said(result())
    assert found.count(LOSES) == 1
    assert found.index(LOSES) > found.index("On digits")


def test_it_is_not_called_so_where_they_do_not(tmp_path: Path):
    for name, finals, seeds in (("level", {"candidate": 0.97}, 3), ("once", {}, 1)):
        races = make_races(("digits",), finals=finals, seeds=seeds)
        found = said(RaceResult.open(write_races(tmp_path / name, *races)))
        assert LOSES not in found
        assert ("these figures do not show it" in found) == (name == "level")
    # Nor on data whose labels do not depend on it, however far it is behind there.
    behind = make_races(("fashion-mnist",), finals={"candidate": 0.7})
    found = said(RaceResult.open(write_races(tmp_path / "behind", *behind)))
    assert "points below" in found
    assert "orientation" not in found


def test_how_much_of_the_time_is_by_faster_steps_and_how_much_by_fewer(result):
    found = said(result(("animal-shape-mnist",), target=85.0))
    (time,) = lines(found, "is sooner than")
    assert "at 85.0 % top-1 (as declared): " in time
    assert "ViT-Ti/16 takes 1." in time
    (parts,) = lines(found, "a factor of 1.41 (95 % interval 1.39 to 1.43) in images per second")
    assert "in images needed" in parts


def test_a_target_of_nobodys_choosing_is_said_to_be_chosen_after_the_fact(result):
    found = result(("animal-shape-mnist",))
    assert lines(said(found), "89.9 % top-1 (what every seed of ViT-Ti/16 ended with, chosen after the fact)")
    assert "89.9 % (after the fact)" in str(found)


def test_a_target_that_nobody_meets_is_a_result(result):
    found = result(("digits",), target=99.9)
    assert lines(
        said(found), "is met by 0 of 3 seeds of ViT-Ti/16 and by 0 of 3 seeds of E(ViT-Ti/16)", "no ratio"
    )
    (pace,) = table(found, "Time to the target").records()
    times = (pace["time of the baseline"], pace["time of the candidate"], pace["the candidate is"])
    assert times == ("not met", "not met", "not met")


def test_what_is_cut_before_its_schedule_ends_is_said_to_be(result):
    found = said(result(("animal-shape-mnist",)))
    assert lines(found, "After the same 155 s of training", "ViT-Ti/16 is cut at 71 % of its schedule")
    assert lines(found, "below what a schedule of that length would reach")


def test_rivals_are_named_with_what_they_cost(result):
    found = said(result(("animal-shape-mnist",)))
    assert lines(found, "; mirrored ViT-Ti/16 + TTA costs 3.85× the MACs per image.")
    assert lines(found, "With 1.03× the linear parameters and 1.03× the MACs", "wide E(ViT-Ti/16)")
    for rival in ("narrow ViT-Ti/16 has 0.98×", "shallow ViT-Ti/16 has 0.96×"):
        assert lines(found, rival, "the MACs and a whole schedule.")


def test_x_cut_at_the_macs_of_its_rival_is_spoken_of_where_nobody_ran_a_whole_schedule_with_them(
    tmp_path: Path,
):
    for name, rivals, spoken_of in (("alone", (), True), ("with", ("half-width",), False)):
        races = make_races(("digits",), rivals=rivals)
        found = said(RaceResult.open(write_races(tmp_path / name, *races)))
        assert bool(lines(found, "After the same 28.6 T MACs of training", "is cut at 52 %")) == spoken_of


def test_what_a_wide_network_takes_is_spoken_of_where_that_changes_who_is_ahead(tmp_path: Path):
    for name, speed, spoken_of in (("fast", 0.85, False), ("slow", 0.3, True)):
        races = make_races(("animal-shape-mnist",), speeds={"wide": speed})
        found = said(RaceResult.open(write_races(tmp_path / name, *races)))
        assert bool(lines(found, "of training, wide E(ViT-Ti/16)")) == spoken_of


def test_energy_where_it_is_known(result, tmp_path: Path):
    known = result(("digits",), joules=True)
    assert lines(said(known), "A whole training of E(ViT-Ti/16) takes 0.7", "the energy of one of ViT-Ti/16")
    assert "training energy" in table(known, "Entrants").markdown()
    unknown = RaceResult.open(write_races(tmp_path / "unknown", *make_races(("digits",))))
    assert "A whole training" not in said(unknown)
    assert "training energy" not in table(unknown, "Entrants").markdown()


def test_every_table_has_its_rows(result):
    found = result()
    rows = {part.title: len(part.rows) for part in found.tables() if isinstance(part, Table)}
    assert rows == {
        "Races": 3,
        "Entrants": 18,
        "Time to the target": 3,
        "Accuracies compared": 27,
        "Trials": 54,
    }


def test_entrants_have_what_one_asks_of_them(result):
    rows = table(result(("animal-shape-mnist",)), "Entrants").markdown().splitlines()
    (candidate,) = (row for row in rows if row.startswith("| E(ViT"))
    for shown in ("2.94 M", "676 M", "562", "155 s", "93.2 ± 0.7 %", "100 %", "104 s", "3 of 3"):
        assert f" {shown} " in candidate.replace("\u00a0", " ")


def test_verdicts_stand_beside_the_differences(result):
    rows = table(result(("digits",)), "Accuracies compared").markdown().splitlines()
    (first,) = (row for row in rows if "| ViT-Ti/16 | steps |" in row)
    assert "−17.2 \\[−18.6, −15.8\\] | worse" in first.replace("\u00a0", " ")


def test_one_seed_is_shown_without_intervals(result):
    found = result(("animal-shape-mnist",), seeds=1)
    assert "with one seed and so without an interval" in found.answers[0].headline
    assert "95 % interval " not in said(found)
    assert "one seed" in str(found)
    assert "±" not in table(found, "Entrants").markdown().split("\n", 1)[1]


def test_a_training_that_failed_is_named_with_its_reason(result):
    found = result(("digits",), statuses={("candidate", 1): "failed"})
    assert lines(said(found), "1 training did not end well", "E(ViT-Ti/16) with seed 1 (failed, the loss")
    assert "(2 seeds)" in found.answers[0].headline
    assert "the loss is not a number at step 12" in str(found)


def test_a_race_without_a_single_candidate_still_shows_the_others(result):
    found = result(("digits",), statuses={("candidate", seed): "oom" for seed in range(3)})
    assert "have no seed yet that both ended with" in found.answers[0].headline
    assert lines(str(found), "narrow ViT-Ti/16", "±", "3 of 3")


def test_a_race_under_way_shows_what_there_is(result):
    found = result(("digits",), left_out=9)
    assert lines(said(found), "9 of 18 trainings have run")
    assert "(1 seed)" in found.answers[0].headline


def test_races_that_have_not_begun_say_so(result):
    found = result(left_out=54)
    assert "no race has a seed that both networks ended with" in found.answers[0].headline
    assert "0 of 18" in str(found)
    assert len(found.frame()) == 0


def test_an_entrant_that_does_not_run_is_missed_by_nobody(result):
    found = result(("digits",), rivals=())
    assert len(table(found, "Entrants").rows) == 2
    assert "narrow" not in str(found)
    # X itself is the rival with augmentation at test time.
    assert lines(said(found), "ViT-Ti/16 + TTA costs 3.85×")


def test_two_races_of_one_pair_on_one_set_are_told_apart(tmp_path: Path):
    info, trials = make_races(("digits", "digits"))
    second = info.races[1].model_copy(update={"key": "another"})
    info = info.model_copy(update={"races": (info.races[0], second)})
    (outcomes,) = RaceResult.open(write_races(tmp_path / "twice", info, trials)).outcomes
    titles = [one.title for one in outcomes]
    assert titles == ["E(ViT-Ti/16) on digits (vit_ti16.flop/digits)", "E(ViT-Ti/16) on digits (another)"]


def test_runs_stand_side_by_side(tmp_path: Path):
    here = write_races(tmp_path / "here", *make_races(("digits",)))
    gpu = {"id": "races-cuda", "title": "On a GPU"}
    there = write_races(tmp_path / "there", *make_races(("digits",), device=H200, info=gpu))
    found = RaceResult.open(here, there)
    assert [answer.headline.split(",")[0] for answer in found.answers] == [
        "On an Intel Xeon @ 2.80 GHz",
        "On an NVIDIA H200",
    ]
    assert "E(ViT-Ti/16) on digits, races-cuda" in str(found)
    assert set(found.frame().device_name) == {"Intel Xeon @ 2.80 GHz", "NVIDIA H200"}
    assert found.page().title == "Small races · On a GPU"
    with pytest.raises(FlopbenchError, match="must differ"):
        RaceResult.open(here, here)


def test_the_frame_has_a_row_per_evaluation(result):
    frame = result(("digits",), evaluations=4).frame()
    assert len(frame) == 6 * 3 * 4
    last = frame[(frame.entrant == "candidate") & (frame.seed == 2)].iloc[-1]
    assert (last.step, last.status, last.data) == (110, "ok", "digits")
    assert last.ema_top1 > last.top1
    assert last.flip_consistency == 1


def test_a_training_without_an_evaluation_has_a_row_too(tmp_path: Path):
    info, trials = make_races(("digits",), seeds=1, statuses={("candidate", 0): "oom"}, evaluations=1)
    frame = RaceResult.open(write_races(tmp_path / "oom", info, trials)).frame()
    own = frame[frame.entrant == "candidate"]
    assert list(own.status) == ["oom"]
    assert own.step.isna().all()


def test_it_prints_itself_and_shows_itself_in_a_notebook(result):
    found = result(("digits",))
    assert "Accuracies compared" in str(found)
    assert "17.2 points below" in str(found)
    assert "<table" in found._repr_html_()


def test_a_report_is_written(result, tmp_path: Path):
    files = result().report(tmp_path / "reports")
    page = files.markdown.read_text(encoding="utf-8")
    assert LOSES in page
    assert "Student's" in page
    assert files.html.is_file()


def test_a_folder_without_races_is_refused(tmp_path: Path):
    with pytest.raises(FlopbenchError, match="it has no races"):
        RaceResult.open(tmp_path)


SHAPES = ("animal-shape-mnist",)


@pytest.fixture
def segmented(result) -> RaceResult:
    return result(SHAPES, task="segmentation", answers=True, rivals=(), target=80.0)


def test_a_race_of_segmentation_speaks_of_miou_and_pixels_alone(segmented):
    found = said(segmented)
    assert lines(found, "3.5 points above ViT-Ti/16", "% mIoU against", "after the same steps (3 seeds)")
    assert lines(found, "at 80.0 % mIoU (as declared)")
    assert lines(found, "On mirrored images", "mIoU", "decides as before on 93.00 % of their pixels")
    assert "top-1" not in found
    shown = segmented.markdown()
    assert "top-1" not in shown
    assert "pixels right" in shown
    assert "80.0 % mIoU |" in shown.replace("\u00a0", " ")
    page = segmented.page().legend
    assert "mIoU is the mean over the classes" in page


def test_what_an_answer_costs_stands_beside_its_accuracy(segmented):
    x, averaged, e = table(segmented, "Accuracy against the time to answer").records()
    assert [row["who answers"] for row in (x, averaged, e)] == [
        "ViT-Ti/16",
        "ViT-Ti/16 + TTA",
        "E(ViT-Ti/16)",
    ]
    rates = [row["images/s answering [95 % interval]"] for row in (x, averaged, e)]
    assert [rate[0] for rate in rates] == pytest.approx([1200, 600, 1680])
    macs = [row["MACs per image answering"] for row in (x, averaged, e)]
    assert macs == [MACS, 2 * MACS, 0.52 * MACS]
    mean, low, high = x["mIoU [95 % interval]"]
    assert low < mean < high
    assert averaged["mIoU [95 % interval]"][0] == pytest.approx(mean + 0.008)
    assert averaged["training time [95 % interval]"] == x["training time [95 % interval]"]
    assert lines(said(segmented), "ViT-Ti/16 + TTA costs 3.85× the MACs per image and takes 2.8")


def test_races_whose_answers_were_not_timed_have_no_such_table(result):
    found = result(SHAPES)
    assert "time to answer" not in str(found)
    assert "to answer" not in said(found)


def test_each_race_beside_another_has_its_own_measure(tmp_path: Path):
    whole = write_races(tmp_path / "whole", *make_races(SHAPES, rivals=()))
    dense = make_races(SHAPES, rivals=(), task="segmentation", info={"id": "dense"})
    found = RaceResult.open(whole, write_races(tmp_path / "dense", *dense))
    first, second = (answer.headline for answer in found.answers)
    assert ("top-1" in first, "mIoU" in first) == (True, False)
    assert ("top-1" in second, "mIoU" in second) == (False, True)
    decided = [
        (row["top-1 ± deviation"] is None, row["mIoU ± deviation"] is None)
        for row in table(found, "Entrants").records()
    ]
    assert decided == [(False, True)] * 2 + [(True, False)] * 2
    frame = found.frame()
    assert set(zip(frame.task, frame.measure, strict=True)) == {
        ("classification", "top-1"),
        ("segmentation", "mIoU"),
    }
    dense_rows = frame[frame.task == "segmentation"]
    assert (dense_rows.figure == dense_rows.ema_miou).all()
    assert (
        frame[frame.task == "classification"].figure == frame.ema_top1[frame.task == "classification"]
    ).all()


def test_one_run_of_both_tasks_says_of_which_its_points_are(tmp_path: Path):
    info, trials = make_races(SHAPES, rivals=())
    dense, more = make_races(SHAPES, rivals=(), task="segmentation")
    race = dense.races[0].model_copy(update={"key": "dense"})
    info = info.model_copy(update={"races": (*info.races, race)})
    trials += [trial.model_copy(update={"race": "dense"}) for trial in more]
    points = RaceResult.open(write_races(tmp_path / "both", info, trials)).answers[0].points
    assert ["points of top-1" in point for point in points[:2]] == [True, False]
    assert ["points of mIoU" in point for point in points[:2]] == [False, True]
