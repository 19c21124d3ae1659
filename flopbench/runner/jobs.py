"""What goes between a sweep and its workers. Imports no torch: the sweep's own process stays light."""

from typing import NamedTuple

from flopbench.frozen import Frozen
from flopbench.models.tasks import TASKS, TaskName
from flopbench.results import Flag, ModelResult

# The jobs that workers do, by the name under which a worker finds them.
PROBE = "flopbench.runner.worker:probe"
PEAKS = "flopbench.runner.worker:peaks"
INSPECT = "flopbench.runner.worker:inspect"
MEASURE = "flopbench.runner.worker:measure"
ATTEMPT = "flopbench.runner.worker:attempt"
COMPILE = "flopbench.runner.worker:compile_beforehand"


class PairFacts(Frozen):
    """What is known of a pair before any timing; the same for all its cells of one image size.

    `random_errors` and `photo_errors` are the candidate's errors of equivariance in its task, by generator of
    its symmetry and with perturbed weights; empty where it promises none. `flags` are for each of its cells.
    """

    baseline: ModelResult
    candidate: ModelResult
    random_errors: dict[str, float] = {}
    photo_errors: dict[str, float] = {}
    task: TaskName = "classification"
    tolerance: float
    flags: tuple[Flag, ...] = ()

    @property
    def failure(self) -> str:
        """Why the pair must not be timed, or nothing."""
        promise = TASKS[self.task].promise
        for kind, errors in (("random images", self.random_errors), ("a photograph", self.photo_errors)):
            for generator, error in errors.items():
                if not error <= self.tolerance:
                    return (
                        f"{self.candidate.label} is not {promise} under a {generator}: relative error "
                        f"{error:.1e} on {kind}, at most {self.tolerance:.0e} allowed"
                    )
        return ""


LEAST_SAMPLING = 5.0
"""Seconds of sampling that a cell gets, if its limit allows, however many are to come: a budget that is too
small for all of them leaves the last ones out, instead of all of them imprecise."""


class Plan(NamedTuple):
    """How long a cell may take: `seconds` of sampling at most, `allowance` seconds altogether if possible.

    With `serving`, a forward cell has serving figures too, within the same seconds.
    """

    precision: float
    seconds: float
    allowance: float
    serving: bool = False
