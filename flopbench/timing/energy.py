"""Energy of a pair's calls: a counter that is read while both models take turns, and what it says of each.

A counter of a whole card or socket moves in steps, on a GPU some tens of milliseconds apart. What it gained
from one turn's begin to its end is therefore no figure of that turn. Read often enough, it shows when its
steps fall, and from the first to the last within one model's turns it gained that model's energy alone.
"""

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

# Largest standard error of a model's energy, relative, for there to be a figure.
RESOLUTION = 0.02
# Turns of one model count as one stretch where nothing but this many seconds lies between them.
GAP_SECONDS = 0.005


class Power(NamedTuple):
    """What a model takes while it runs: average `watts`, and `joules` a call."""

    watts: float
    joules: float


class _Reading(NamedTuple):
    at: float
    joules: float


class _Step(NamedTuple):
    """A reading that shows a step of the counter; when that was, and its standard error, in seconds."""

    read: float
    joules: float
    at: float
    error: float


class _Turn(NamedTuple):
    role: str
    calls: int
    begin: float
    end: float


@dataclass
class Meter:
    """Reads a counter of energy whenever it is told to, and knows whose turn it is.

    Attributes:
        counter: joules since some moment; None where they cannot be known.
        refresh: seconds from one step of the counter to the next, where that is known; else the readings
            have to show it.
        now: the wall clock.
    """

    counter: Callable[[], float | None]
    refresh: float | None = None
    now: Callable[[], float] = time.monotonic
    _readings: list[_Reading] = field(default_factory=list, init=False)
    _turns: list[_Turn] = field(default_factory=list, init=False)

    def read(self) -> None:
        """Note where the counter stands."""
        joules = self.counter()
        if joules is not None:
            self._readings.append(_Reading(self.now(), joules))

    @contextmanager
    def turn(self, role: str, calls: int) -> Iterator[None]:
        """Within it, so many calls of the model of `role` run, and nothing else."""
        begin = self.now()
        self.read()
        yield
        self.read()
        self._turns.append(_Turn(role, calls, begin, self.now()))

    @property
    def watts(self) -> float | None:
        """Average power from the first turn to the last, of both models and what lies between them."""
        return self._watts([(self._turns[0].begin, self._turns[-1].end)]) if self._turns else None

    def power(self) -> dict[str, Power]:
        """By role; none of a role whose turns are too short for this counter to tell it from the other's."""
        found = {}
        for role in dict.fromkeys(turn.role for turn in self._turns):
            own = [turn for turn in self._turns if turn.role == role]
            watts = self._watts(self._stretches(role))
            if watts is not None:
                seconds = sum(turn.end - turn.begin for turn in own)
                found[role] = Power(watts, watts * seconds / sum(turn.calls for turn in own))
        return found

    def _watts(self, stretches: list[tuple[float, float]]) -> float | None:
        """Power from the first to the last step of each stretch; None where that is not known well enough."""
        joules = seconds = variance = 0.0
        steps = self._steps()
        for begin, end in stretches:
            first = bisect_left(steps, begin, key=lambda step: step.read)
            last = bisect_right(steps, end, key=lambda step: step.read) - 1
            if first < last:
                joules += steps[last].joules - steps[first].joules
                seconds += steps[last].at - steps[first].at
                variance += steps[first].error ** 2 + steps[last].error ** 2
        known = joules > 0 and math.sqrt(variance) <= RESOLUTION * seconds
        return joules / seconds if known else None

    def _stretches(self, role: str) -> list[tuple[float, float]]:
        """Begin and end of what is one model's turn without a break: in A B B A it has two in a row."""
        found: list[tuple[float, float]] = []
        before: _Turn | None = None
        for turn in self._turns:
            if turn.role == role:
                if before and before.role == role and turn.begin - before.end <= GAP_SECONDS:
                    found[-1] = (found[-1][0], turn.end)
                else:
                    found.append((turn.begin, turn.end))
            before = turn
        return found

    def _steps(self) -> list[_Step]:
        if self.refresh is not None:
            return [_step(reading, self.refresh) for reading in self._readings]
        # The step lies anywhere between the reading that shows it and the one before.
        return [
            _step(after, after.at - before.at)
            for before, after in pairwise(self._readings)
            if after.joules != before.joules
        ]


def _step(reading: _Reading, late: float) -> _Step:
    """Of a step that may be seen so many seconds late, each as likely as the other."""
    return _Step(reading.at, reading.joules, reading.at - late / 2, late / math.sqrt(12))


class Rapl:
    """Joules that the processors' packages took, by the kernel's powercap; a counter for `Meter`.

    It is the energy of all that runs on these sockets, of other processes too, without the memory's. Most
    systems let root alone read it.
    """

    # Intel's manual: the counters are updated about every millisecond.
    REFRESH = 1e-3

    def __init__(self, powercap: Path = Path("/sys/class/powercap")) -> None:
        self.total = 0.0
        self.packages: dict[Path, int] = {}
        with suppress(OSError, ValueError):
            for zone in sorted(powercap.glob("intel-rapl:*")):
                # AMD's have the same names; other zones (cores, memory, the whole platform) overlap.
                if (zone / "name").read_text().startswith("package"):
                    self.packages[zone] = int((zone / "energy_uj").read_text())

    def __call__(self) -> float | None:
        """Joules since this was made; None where the system does not tell."""
        try:
            for zone, before in self.packages.items():
                now = int((zone / "energy_uj").read_text())
                wrapped = int((zone / "max_energy_range_uj").read_text()) if now < before else 0
                self.total += (now - before + wrapped) * 1e-6
                self.packages[zone] = now
        except (OSError, ValueError):
            self.packages = {}
        return self.total if self.packages else None
