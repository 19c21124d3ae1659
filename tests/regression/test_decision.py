import json
import math

import pytest

from flopbench.errors import ExitCode
from flopbench.regression.decision import Change, Comparison, Outcome, correct, decide, holm
from flopbench.regression.output import dumps
from flopbench.results import Interval


def _interval(low, high):
    return Interval(estimate=(low + high) / 2, low=low, high=high)


def _change(outcome, p_value=None):
    return Change(
        subject="c",
        metric="speedup",
        change=_interval(0.1, 0.2),
        tolerance=0.05,
        outcome=outcome,
        p_value=p_value,
    )


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.051, 0.20, Outcome.FAIL),
        (0.049, 0.20, Outcome.AMBIGUOUS),
        (-0.20, 0.051, Outcome.AMBIGUOUS),
        (-0.20, 0.05, Outcome.PASS),
        (-0.50, -0.30, Outcome.PASS),
    ],
)
def test_fails_only_when_the_whole_interval_lies_beyond_the_tolerance(low, high, outcome):
    assert decide(_interval(low, high), 0.05) is outcome


def test_exact_figures_are_held_to_the_last_unit():
    assert decide(_interval(0.0, 0.0), 0.0) is Outcome.PASS
    assert decide(_interval(1e-9, 1e-9), 0.0) is Outcome.FAIL


def test_holm_steps_down():
    # Worked by hand at level 0.05: 0.01 ≤ 0.05/4, 0.013 ≤ 0.05/3, 0.03 > 0.05/2 stops the rest.
    assert holm([0.03, 0.01, 0.04, 0.013], 0.05) == [False, True, False, True]
    assert holm([], 0.05) == []


def test_a_failure_among_many_cells_that_chance_explains_becomes_ambiguous():
    alone = correct([_change(Outcome.FAIL, 0.01)])
    assert alone[0].outcome is Outcome.FAIL
    among = correct([_change(Outcome.FAIL, 0.01), *[_change(Outcome.PASS, 0.9)] * 20])
    assert among[0].outcome is Outcome.AMBIGUOUS
    assert "Holm" in among[0].note


def test_exact_failures_stand_whatever_the_number_of_cells():
    changes = correct([_change(Outcome.FAIL), *[_change(Outcome.PASS, 0.9)] * 50])
    assert changes[0].outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("outcomes", "usual", "strict"),
    [
        ([], 0, 0),
        ([Outcome.PASS], 0, 0),
        ([Outcome.PASS, Outcome.AMBIGUOUS], 0, 4),
        ([Outcome.AMBIGUOUS, Outcome.MISSING, Outcome.PASS], 3, 3),
        ([Outcome.AMBIGUOUS, Outcome.FAIL, Outcome.MISSING], 1, 1),
    ],
)
def test_exit_codes(outcomes, usual, strict):
    comparison = Comparison(base="a", new="b", changes=tuple(map(_change, outcomes)))
    assert comparison.exit_code() == ExitCode(usual)
    assert comparison.exit_code(strict=True) == ExitCode(strict)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_holds_numbers_alone(value):
    change = Change(subject="c", metric="outputs", base=0.0, new=value, outcome=Outcome.FAIL)
    assert json.loads(dumps(Comparison(base="a", new="b", changes=(change,))))["changes"][0]["new"] is None


def test_json_says_the_outcome():
    content = Comparison(base="a", new="b", changes=(_change(Outcome.FAIL),)).to_json()
    assert json.loads(json.dumps(content))["outcome"] == "fail"
