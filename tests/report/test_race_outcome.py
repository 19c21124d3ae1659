"""Times to a target, differences of accuracy and their intervals over seeds, and what becomes of gaps."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import stdtrit

from flopbench.report.race_outcome import Comparison, Outcome, outcomes_of
from flopbench.report.trajectories import Verdict, figure_at, ratio_interval, reached, seed_interval
from flopbench.results.trainings import Accuracy, Point, Scores
from flopbench.timing.statistics import location_interval
from tests.support.races import make_races


def point(step: int, top1: float, *, seconds: float | None = None, joules: float | None = None) -> Point:
    scores = Scores(top1=top1, nll=1.0)
    return Point(
        step=step,
        samples=100 * step,
        seconds=float(step) if seconds is None else seconds,
        joules=joules,
        macs=1000 * step,
        accuracy=Accuracy(images=100, plain=scores, mirrored=scores, flip_consistency=1.0),
    )


RISING = (point(10, 0.4, seconds=20.0), point(20, 0.6, seconds=40.0), point(30, 0.8, seconds=60.0))


def only(outcome: Outcome, one: str, other: str, equal: str, *, averaged: bool = False) -> Comparison:
    wanted = (one, other, equal, averaged)
    (found,) = (
        each
        for each in outcome.comparisons
        if (each.one.key, each.other.key, each.equal, each.averaged) == wanted
    )
    return found


def the_outcome(*args, **options) -> Outcome:
    info, trials = make_races(*args, **options)
    return outcomes_of(info, trials)[0]


@pytest.mark.parametrize(
    ("target", "seconds", "steps"),
    [(0.3, 20.0, 10.0), (0.4, 20.0, 10.0), (0.5, 30.0, 15.0), (0.75, 55.0, 27.5), (0.8, 60.0, 30.0)],
)
def test_the_target_is_reached_on_the_line_between_two_evaluations(target, seconds, steps):
    assert reached(RISING, target) == pytest.approx(seconds)
    assert reached(RISING, target, "step") == pytest.approx(steps)


def test_a_target_that_is_not_met_and_a_cost_that_is_not_known_have_no_figure():
    assert reached(RISING, 0.81) is None
    assert reached(RISING, 0.5, "joules") is None
    assert reached((), 0.5) is None


def test_it_counts_when_the_target_is_met_first_not_when_it_is_kept():
    falls = (point(10, 0.4), point(20, 0.8), point(30, 0.6), point(40, 0.9))
    assert reached(falls, 0.7) == pytest.approx(17.5)


def test_what_one_would_deploy_is_looked_at():
    averaged = RISING[1].model_copy(update={"ema": RISING[2].accuracy})
    assert reached((RISING[0], averaged), 0.8, "step") == 20
    assert figure_at((RISING[0], averaged), "step", 20) == 0.8


@pytest.mark.parametrize(
    ("budget", "top1"), [(20.0, 0.4), (30.0, 0.5), (60.0, 0.8), (19.0, None), (61.0, None)]
)
def test_accuracy_at_a_budget_is_on_the_line_between_two_evaluations_and_nowhere_else(budget, top1):
    assert figure_at(RISING, "seconds", budget) == (None if top1 is None else pytest.approx(top1))


def coverage(
    seeds: int, draw: Callable[[np.random.Generator, int], np.ndarray], *, grain: float = 0.0
) -> float:
    """How often the interval of figures around zero holds zero."""
    rng = np.random.default_rng(1)
    held, races = 0, 1000
    for _ in range(races):
        found = seed_interval([*map(float, draw(rng, seeds))], grain=grain)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
    return held / races


@pytest.mark.parametrize("seeds", [2, 3, 5, 6, 10])
def test_the_interval_over_seeds_holds_the_truth_as_often_as_it_says(seeds):
    assert 0.93 <= coverage(seeds, lambda rng, n: rng.normal(0, 0.4, n)) <= 0.98


def test_it_does_so_for_differences_of_counts_of_few_images():
    def share(rng: np.random.Generator, seeds: int) -> np.ndarray:
        return (rng.binomial(360, 0.97, seeds) - rng.binomial(360, 0.97, seeds)) / 3.6

    # Shares come in steps, and three equal differences are an interval of no width.
    assert coverage(3, share) > 0.92


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_that_agree_by_chance_are_not_taken_to_agree_exactly(seeds):
    step = 1 / 3.6

    def rounded(rng: np.random.Generator, seeds: int) -> np.ndarray:
        return step * np.round(rng.normal(step / 2, 0.2, seeds) / step) - step / 2

    assert coverage(seeds, rounded) < 0.9
    assert coverage(seeds, rounded, grain=step) > 0.94


@pytest.mark.parametrize("seeds", [3, 6, 10])
def test_equal_differences_have_an_interval_as_wide_as_rounding_leaves_open(seeds):
    found = seed_interval([0.1] * seeds, grain=0.1)
    half = stdtrit(seeds - 1, 0.975) * 0.1 / math.sqrt(6 * seeds)
    assert (found.low, found.high) == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))


def test_of_three_seeds_the_bootstrap_alone_would_hold_it_in_three_of_four_races():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        _, low, high = location_interval(rng.normal(0, 1, 3))
        held += low <= 0 <= high
    assert held / 400 == pytest.approx(0.75, abs=0.06)


def test_one_seed_has_no_interval_and_says_nothing_for_certain():
    found = seed_interval([3.0])
    assert (found.value, found.low, found.high, found.verdict()) == (3.0, None, None, "one seed")
    with pytest.raises(ValueError, match="no seed"):
        seed_interval([])


def test_ratios_are_judged_by_their_logarithms():
    found, inverse = ratio_interval([1.5, 2.0, 2.4]), ratio_interval([1 / 1.5, 1 / 2.0, 1 / 2.4])
    assert found
    assert inverse
    assert found.low
    assert inverse.high
    assert found.value == pytest.approx((1.5 * 2.0 * 2.4) ** (1 / 3))
    assert found.low == pytest.approx(1 / inverse.high)
    assert ratio_interval([]) is None


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("animal-shape-mnist", "better"), ("fashion-mnist", "not told apart"), ("digits", "worse")],
)
def test_who_is_ahead_after_the_same_steps(name: str, verdict: Verdict):
    found = only(the_outcome((name,)), "candidate", "baseline", "steps")
    assert found.verdict == verdict
    assert (found.points.seeds, found.budget, found.cut) == (3, None, None)
    assert found.points.value == pytest.approx(100 * (found.figures[0] - found.figures[1]))


def test_what_a_seed_does_to_all_entrants_does_not_widen_the_interval():
    info, trials = make_races(("animal-shape-mnist",), spread=0.0)
    luck = {0: -0.02, 1: 0.0, 2: 0.03}

    def moved(trial):
        last = trial.points[-1]
        plain = last.ema.plain.model_copy(update={"top1": last.ema.plain.top1 + luck[trial.seed]})
        ema = last.ema.model_copy(update={"plain": plain})
        return trial.model_copy(update={"points": (*trial.points[:-1], last.model_copy(update={"ema": ema}))})

    found = only(outcomes_of(info, map(moved, trials))[0], "candidate", "baseline", "steps").points
    assert found.low == pytest.approx(3.5, abs=0.11)
    assert found.high == pytest.approx(3.5, abs=0.11)


def test_the_slower_one_is_cut_at_the_seconds_that_the_faster_one_takes_in_all():
    outcome = the_outcome(("animal-shape-mnist",), speeds={"candidate": 2.0})
    found = only(outcome, "candidate", "baseline", "seconds")
    taken = outcome.standings["candidate"].at_end("seconds")
    assert found.budget == pytest.approx(np.mean(taken))
    assert found.cut
    assert found.cut[0].key == "baseline"
    assert found.cut[1] == pytest.approx(0.5, abs=0.02)
    end = only(outcome, "candidate", "baseline", "steps")
    assert found.figures[0] == pytest.approx(end.figures[0])
    assert found.figures[1] < end.figures[1] - 0.05


def test_where_the_candidate_is_slower_it_is_the_one_that_is_cut():
    found = only(the_outcome(speeds={"candidate": 0.7}), "candidate", "baseline", "seconds")
    assert found.cut
    assert found.cut[0].key == "candidate"
    assert only(the_outcome(speeds={"candidate": 1.0}), "candidate", "baseline", "seconds").cut is None


def test_at_equal_macs_the_baseline_is_cut_at_the_candidates_share():
    found = only(the_outcome(), "candidate", "baseline", "MACs")
    assert found.cut
    assert found.cut[0].key == "baseline"
    assert found.cut[1] == pytest.approx(0.52)


def test_rivals_are_compared_at_their_ends():
    outcome = the_outcome()
    assert only(outcome, "wide", "baseline", "parameters, MACs").points.value > 0
    for rival in ("half-width", "half-depth"):
        assert only(outcome, "candidate", rival, "parameters, MACs").cut is None


def test_a_wide_network_of_other_linear_parameters_is_compared_at_equal_macs_alone():
    info, trials = make_races(("digits",))
    race = info.races[0]
    entrants = tuple(
        one.model_copy(update={"linear_parameters": 2_000_000}) if one.key == "wide" else one
        for one in race.entrants
    )
    info = info.model_copy(update={"races": (race.model_copy(update={"entrants": entrants}),)})
    assert only(outcomes_of(info, trials)[0], "wide", "baseline", "MACs").budget is None


def test_augmentation_at_test_time_is_the_rival_at_twice_its_macs():
    outcome = the_outcome()
    found = only(outcome, "candidate", "mirror", "steps", averaged=True)
    assert found.cost == pytest.approx(2 / 0.52)
    assert found.figures[1] == pytest.approx(only(outcome, "candidate", "mirror", "steps").figures[1] + 0.008)


def test_where_the_recipe_mirrors_x_is_the_rival_itself():
    outcome = the_outcome(rivals=())
    assert only(outcome, "candidate", "baseline", "steps", averaged=True)
    assert {found.other.key for found in outcome.comparisons} == {"baseline"}


def test_without_a_declared_target_it_is_what_every_seed_of_the_baseline_ended_with():
    outcome = the_outcome()
    ends = [end.best.plain.top1 for end in outcome.standings["baseline"].ends]
    assert outcome.target == min(ends)
    assert not outcome.declared
    assert outcome.standings["baseline"].met == 3
    declared = the_outcome(target=85.0)
    assert declared.target == 0.85
    assert declared.declared


def test_the_ratio_of_times_is_that_of_steps_and_of_what_is_needed():
    pace = the_outcome(target=80.0).pace
    assert pace
    assert pace.verdict == "better"
    time, images = pace.ratios["seconds"], pace.ratios["samples"]
    assert time
    assert images
    assert pace.speed
    assert math.isclose(time.value, images.value * pace.speed.value, rel_tol=1e-6)
    assert "joules" not in pace.ratios


def test_energy_to_the_target_where_it_is_known():
    pace = the_outcome(target=80.0, joules=True).pace
    assert pace
    assert pace.ratios["joules"]
    assert pace.ratios["joules"].value > 1


def test_a_target_that_some_seeds_miss_has_no_verdict():
    outcome = the_outcome(("digits",))
    assert outcome.pace
    assert outcome.pace.verdict == "not met"
    assert [outcome.standings[role].met for role in ("baseline", "candidate")] == [3, 0]
    assert not outcome.pace.ratios


def test_a_training_that_failed_counts_for_nothing():
    outcome = the_outcome(statuses={("candidate", 1): "failed"})
    found = only(outcome, "candidate", "baseline", "steps")
    assert found.points.seeds == 2
    assert outcome.pace
    assert not outcome.pace.ratios
    assert [(trial.entrant, trial.seed) for trial in outcome.failed] == [("candidate", 1)]


def test_a_race_that_has_not_ended_shows_what_there_is():
    started = the_outcome(("digits",), left_out=17)
    assert (started.planned, len(started.trials), started.comparisons) == (18, 1, [])
    assert started.target is not None
    assert started.pace
    assert started.pace.verdict == "not met"
    nothing = the_outcome(("digits",), left_out=18)
    assert nothing.target is None
    assert nothing.pace is None
    assert [standing.met for standing in nothing.standings.values()] == [0] * 6


def test_one_seed_is_compared_without_an_interval():
    outcome = the_outcome(seeds=1, target=80.0)
    assert {found.verdict for found in outcome.comparisons} == {"one seed"}
    assert outcome.pace
    assert outcome.pace.verdict == "one seed"


def test_accuracies_of_pixels_come_in_steps_of_a_pixel():
    images, pixels = (
        the_outcome(("digits",), task=task).grain for task in ("classification", "segmentation")
    )
    assert images == pytest.approx(100 / 360)
    assert pixels == pytest.approx(100 / (360 * 28 * 28))


def test_the_target_of_a_segmentation_is_miou():
    outcome = the_outcome(("digits",), task="segmentation")
    assert outcome.target == min(end.best.plain.miou or 0.0 for end in outcome.standings["baseline"].ends)
    found = only(outcome, "candidate", "baseline", "steps")
    assert found.figures[0] == pytest.approx(0.8, abs=0.02)
    assert found.time is None
    timed = only(the_outcome(("digits",), answers=True), "candidate", "mirror", "steps", averaged=True)
    assert timed.time
    assert timed.time.value == pytest.approx(2 * 1.4)
