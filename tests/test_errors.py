"""What is said of a name that does not exist, or of another's error, is one line that can be read."""

from pathlib import Path

import pytest
import torch
from torch import nn

from flopbench.errors import in_one_line, own_lines, unknown


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


class Inner(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x.reshape(2, 3))  # innermost


class Outer(nn.Sequential):
    def forward(self, input):
        return super().forward(input)  # caller


def line(comment):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, text in enumerate(lines, 1) if text.endswith(f"# {comment}"))


def test_of_the_stack_the_users_own_lines_are_shown():
    with pytest.raises(RuntimeError) as caught:
        Outer(Inner())(torch.zeros(6))
    where = own_lines(caught.value)
    name = Path(__file__).name
    assert where == f"{name}:{line('innermost')} in forward, called from {name}:{line('caller')} in forward"
    told = in_one_line(caught.value)
    assert told.startswith(f"{type(caught.value).__name__}: ")
    assert told.endswith(f"({where})")
    assert "\n" not in told


def test_an_error_without_message_or_lines_is_named_by_its_type():
    assert in_one_line(AssertionError()) == "AssertionError"
    assert in_one_line(ValueError("\nfirst\nsecond")) == "ValueError: first"
    with pytest.raises(SyntaxError) as caught:
        compile("def net(:", "/home/somebody/nets.py", "exec")
    assert in_one_line(caught.value).endswith("(nets.py:1)") or "nets.py:1," in in_one_line(caught.value)
    assert "somebody" not in in_one_line(caught.value)
