"""How long each kind of device is warmed up, and how long it runs one model before the other's turn.

A GPU at its power limit sets its clocks by the power that it has drawn over the last tens to hundreds of
milliseconds, and what it draws depends on the model. Models that alternate faster than that are both timed at
clocks between their own; one that is timed for a moment only is timed at boost clocks, which it cannot hold.
So every turn of a model begins with calls that are not timed, until the clocks are its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flopbench.modes import DeviceKind
from flopbench.timing.statistics import MIN_ROUNDS

# Share of the time given that the least number of rounds is planned to take: something lies between them.
PLANNED = 0.9
# Share of its length from which on a turn counts as whole.
WHOLE = 0.9


@dataclass(frozen=True)
class Pacing:
    """What a kind of device needs for times that can be trusted, in seconds.

    Attributes:
        warm_up: of calls without a pause, at least, before a model is timed at all.
        sampling: of sampling, at least, before it may end because the speed-up is known well enough.
        lead: of calls that are not timed when the other model ran before.
        again: of the same when the model itself did: they queue work, so that the first timed call does not
            wait for its own dispatch.
        block: of timed calls in a row, so that a block of fast calls outlasts what surrounds it.
        most_calls: timed calls in a row, at most, for each is kept in the record.
    """

    warm_up: float
    sampling: float
    lead: float
    again: float
    block: float
    most_calls: int

    def calls(self, seconds: float) -> int:
        """How many calls of `seconds` each make a block."""
        return max(1, min(self.most_calls, round(self.block / max(seconds, 1e-9))))

    def plan(self, paces: Mapping[str, "Pace"], seconds: float) -> "Plan":
        """The turns of both models, shortened where `seconds` do not hold the least number of rounds.

        Args:
            paces: of the baseline and the candidate, by role.
            seconds: that sampling may take.
        """
        calls = self.calls(min(pace.step for pace in paces.values()))
        whole = sum(pace.whole for pace in paces.values())
        a_round = 2 * calls * whole + 2 * (self.lead + self.again)
        share = min(1.0, PLANNED * seconds / (MIN_ROUNDS * a_round)) if self.lead else 1.0

        def leads(lead: float, at_least: int) -> dict[str, int]:
            return {
                role: max(at_least, round(share * lead / max(pace.whole, 1e-9)))
                for role, pace in paces.items()
            }

        return Plan(
            calls=max(1, int(share * calls)),
            lead=leads(self.lead, 1 if self.lead else 0),
            again=leads(self.again, 0),
            shortened=share < WHOLE,
        )


class Pace(NamedTuple):
    """Seconds of a model's timed step, and of the whole call with what is prepared for it."""

    step: float
    whole: float


class Plan(NamedTuple):
    """Calls in a turn: timed ones, and before these ones that are not, by role.

    `lead` is after the other model's turn, `again` after the model's own. `shortened` says that the time
    given is too short for each model to meet its own clocks.
    """

    calls: int = 1
    lead: Mapping[str, int] = {"baseline": 0, "candidate": 0}
    again: Mapping[str, int] = {"baseline": 0, "candidate": 0}
    shortened: bool = False


# A CPU's clocks follow within a block. A GPU's lead outlasts the power controller's memory of a tenth of a
# second three times; six rounds take about five seconds. Not tried on a GPU yet.
PACING: dict[DeviceKind, Pacing] = {
    "cpu": Pacing(warm_up=0.0, sampling=0.0, lead=0.0, again=0.0, block=0.01, most_calls=50),
    "cuda": Pacing(warm_up=0.5, sampling=2.0, lead=0.3, again=0.02, block=0.03, most_calls=200),
}
