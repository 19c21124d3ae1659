"""What is said of a name that does not exist stays one line that can be read."""

import pytest

from flopbench.errors import unknown


@pytest.mark.parametrize(
    ("known", "hint"),
    [
        (["alpha", "omega"], "did you mean alpha?"),
        (["one", "two"], "known: one, two"),
        ([f"{n}" for n in range(1000)], "none of the 1000 known has a name like it"),
    ],
)
def test_unknown_names(known, hint):
    assert str(unknown("word", "alpa", known)) == f"unknown word 'alpa'; {hint}"
