"""Three outcomes: a change is a regression, is none, or the measurement cannot tell.

A fourth is no change: what the base has is missing now.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from flopbench.errors import ExitCode
from flopbench.frozen import Frozen
from flopbench.report.shown import Shown
from flopbench.results import Interval

if TYPE_CHECKING:
    from flopbench.report.table import Table

ALPHA = 0.025
"""Probability of a false alarm over all cells of a comparison: one side of a 95 % interval."""


class Outcome(StrEnum):
    """What became of one figure, or of all of them; the later in this order, the worse."""

    PASS = "pass"
    AMBIGUOUS = "ambiguous"
    MISSING = "missing"
    FAIL = "fail"


def decide(change: Interval, tolerance: float) -> Outcome:
    """Whether a figure became worse by more than `tolerance`.

    Args:
        change: relative worsening with its interval: 0.05 is five per cent worse, −0.05 better.
        tolerance: τ ≥ 0, the largest worsening that is let pass.

    Returns:
        FAIL when the interval lies wholly beyond τ, PASS when no part of it does, else AMBIGUOUS.
    """
    if change.low > tolerance:
        return Outcome.FAIL
    return Outcome.PASS if change.high <= tolerance else Outcome.AMBIGUOUS


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of several together; PASS of none."""
    order = list(Outcome)
    return max(outcomes, key=order.index, default=Outcome.PASS)


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects at family-wise level `alpha`.

    Source: S. Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of
    Statistics 6, 1979.
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def _finite(value: float | None) -> float | None:
    """What is no number (a constant network's error is infinite) has no place in a table or in JSON."""
    return value if value is not None and math.isfinite(value) else None


Figure = Annotated[float | None, BeforeValidator(_finite)]


class Change(Frozen):
    """How one figure of one cell or model changed.

    Attributes:
        subject: id of the cell, or of the model and image size.
        metric: name of the figure.
        label: the model it belongs to as people read it, empty for a figure of a pair.
        base: the figure before, in the metric's unit; None where there is none.
        new: the figure now.
        change: relative worsening with its interval, + is worse, whichever way the figure goes; None where
            there is no interval.
        tolerance: τ, a fraction.
        outcome: of `decide`, after Holm's correction.
        p_value: of the hypothesis that the worsening is within the tolerance; None for exact figures.
        note: what else there is to say.
    """

    subject: str
    metric: str
    label: str = ""
    base: Figure = None
    new: Figure = None
    change: Interval | None = None
    tolerance: float = 0.0
    outcome: Outcome
    p_value: float | None = None
    note: str = ""

    @property
    def title(self) -> str:
        """Subject, metric and model in one line."""
        return " ".join(filter(None, (self.subject, self.metric.replace("_", " "), self.label)))


def missing(subject: str, metric: str = "status", reason: str = "is missing now") -> Change:
    """What a base has and the new state lacks: no regression was shown, and no pass either."""
    note = f"was measured before and {reason}; renew the base if that is meant"
    return Change(subject=subject, metric=metric, outcome=Outcome.MISSING, note=note)


def correct(changes: Sequence[Change], alpha: float = ALPHA) -> tuple[Change, ...]:
    """Holm's correction: among many cells, a failure that chance would explain becomes ambiguous."""
    tested = [change for change in changes if change.p_value is not None]
    verdicts = iter(holm([change.p_value for change in tested if change.p_value is not None], alpha))
    corrected = []
    for change in changes:
        stands = change.p_value is None or next(verdicts)
        if change.outcome is Outcome.FAIL and not stands:
            note = "beyond the tolerance, yet not after Holm's correction"
            change = change.model_copy(update={"outcome": Outcome.AMBIGUOUS, "note": note})
        corrected.append(change)
    return tuple(corrected)


class Comparison(Shown, Frozen):
    """All changes between a base and a new state, with what could not be compared and why.

    It prints as its table, what there is to say of each figure that did not pass, and the outcome.
    """

    base: str
    new: str
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: "Comparison") -> "Comparison":
        """Both comparisons as one, for example the exact and the statistical tier."""
        notes = (*self.notes, *(note for note in other.notes if note not in self.notes))
        return self.model_copy(update={"changes": self.changes + other.changes, "notes": notes})

    @property
    def outcome(self) -> Outcome:
        """The worst of the changes."""
        return worst(change.outcome for change in self.changes)

    def of(self, outcome: Outcome) -> list[Change]:
        """The changes with this outcome."""
        return [change for change in self.changes if change.outcome is outcome]

    def shown(self) -> "Iterator[Table | str]":
        """The table, the notes, and a line with the outcome."""
        from flopbench.regression.output import summary, table

        if self.changes:
            yield table(self.changes)
        for change in self.changes:
            if change.note and change.outcome is not Outcome.PASS:
                yield f"{change.title}: {change.note}"
        yield from (*self.notes, summary(self))

    def exit_code(self, *, strict: bool = False) -> ExitCode:
        """0 pass, 1 regression, 3 where something is missing; ambiguous is 4 if `strict`, else 0."""
        return {
            Outcome.PASS: ExitCode.OK,
            Outcome.AMBIGUOUS: ExitCode.AMBIGUOUS if strict else ExitCode.OK,
            Outcome.MISSING: ExitCode.NOTHING_MEASURED,
            Outcome.FAIL: ExitCode.REGRESSION,
        }[self.outcome]

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON holds it."""
        return {"schema": 1, "outcome": self.outcome, **self.model_dump(mode="json")}
