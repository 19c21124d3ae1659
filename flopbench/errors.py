"""Errors that a user can mend: one line that says what is wrong, where, and what would be right."""

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every `flopbench` command."""

    OK = 0
    REGRESSION = 1
    USAGE = 2
    NOTHING_MEASURED = 3
    AMBIGUOUS = 4


class FlopbenchError(Exception):
    """A mistake in what flopbench was given; the message is shown as it is, without a stack trace."""

    exit_code = ExitCode.USAGE


class NothingMeasuredError(FlopbenchError):
    """The input was right, yet no cell could be measured."""

    exit_code = ExitCode.NOTHING_MEASURED


# That a line can name.
_FEW = 100


def unknown(kind: str, given: str, known: Iterable[str]) -> FlopbenchError:
    """The error for a name that does not exist, with the nearest names that do."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif len(names) <= _FEW:
        hint = f"known: {', '.join(names)}"
    else:
        hint = f"none of the {len(names)} known has a name like it"
    return FlopbenchError(f"unknown {kind} {given!r}; {hint}")
