"""Figures as people read them."""

import pytest

from flopbench.report import text


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ((3.17, 1.6, 4.7), "+3.2 [+1.6, +4.7]"),
        ((-16.7, -18.0, -15.3), "−16.7 [−18.0, −15.3]"),
        # One decimal would hide on which side of zero the end lies,
        ((0.42, 0.04, 0.8), "+0.42 [+0.04, +0.80]"),
        # or that the interval has a width.
        ((0.33, 0.31, 0.35), "+0.33 [+0.31, +0.35]"),
        ((1.23, None, None), "+1.2"),
        ((0.0, None, None), "0.0"),
    ],
)
def test_differences_have_signs_and_as_many_decimals_as_their_intervals_need(ends, shown: str):
    assert text.difference(*ends).replace("\u00a0", " ") == shown


def test_nothing_is_a_negative_zero():
    assert text.signed(-0.04) == "0.0"
    assert text.signed(0.04, 2) == "+0.04"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0123, "12.3 ms"), (114, "114 s"), (599, "599 s"), (1860, "31.0 min"), (95_000, "26.4 h")],
)
def test_long_times_are_in_minutes_and_hours(seconds: float, shown: str):
    assert text.duration(seconds).replace("\u00a0", " ") == shown


def test_a_single_seed_has_no_deviation():
    assert text.with_spread(0.901, 0.004).replace("\u00a0", " ") == "90.1 ± 0.4 %"
    assert text.with_spread(0.901, None).replace("\u00a0", " ") == "90.1 %"
