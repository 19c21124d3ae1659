"""One pair on one device: built, called, checked, warmed up and sampled, in one way whoever asks for it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flopbench.cells import Cell, DeviceKind
from flopbench.kernels import Ran, has_ours
from flopbench.kernels.dispatch import observe, specified
from flopbench.models.catalog import parse_name
from flopbench.results import Check, Flag
from flopbench.testing.invariance import TOLERANCE, invariance_error
from flopbench.timing.clock import CLOCKS, Clock
from flopbench.timing.device_state import Watch, watch
from flopbench.timing.flags import find_flags
from flopbench.timing.memory import peak_bytes
from flopbench.timing.sampling import Rounds, calls_a_block, sample_pair, warm_up
from flopbench.timing.workload import (
    Workload,
    build_model,
    compiled_units,
    make_images,
    make_workload,
    tensors,
)

ROLES = ("baseline", "candidate")


class WrongOutputError(AssertionError):
    """An output is not what it must be, so that no time of this pair would mean anything."""


class Sampled(NamedTuple):
    """All rounds of a pair, what the device did meanwhile (JSON values), and what is questionable in them."""

    rounds: Rounds
    state: dict[str, Any]
    flags: tuple[Flag, ...]


@dataclass
class Bench:
    """A pair that is taken through its steps in order: first calls, check, warm-up, (memory,) sampling.

    Attributes:
        workloads: the models by role, baseline and candidate.
        device: on which both run.
        cell: what the models are built for; None for callables, which have no eager twin and no symmetry.
        on_phase: told the name of each phase when it begins.
        phases: seconds of wall time by phase.
        first_seconds: by role, of the first call, compilation included.
        ran: by role, what each operation of ours was seen to run as in the first call (`kernels.dispatch`).
        pace: by role, seconds a call once warm.
    """

    workloads: dict[str, Workload]
    device: DeviceKind
    cell: Cell | None = None
    on_phase: Callable[[str], object] = lambda name: None
    phases: dict[str, float] = field(default_factory=dict, init=False)
    first_seconds: dict[str, float] = field(default_factory=dict, init=False)
    ran: dict[str, Ran] = field(default_factory=dict, init=False)
    pace: dict[str, float] = field(default_factory=dict, init=False)
    _rounds: Rounds = field(default_factory=Rounds, init=False)

    @classmethod
    def of(cls, cell: Cell, on_phase: Callable[[str], object] = lambda name: None) -> "Bench":
        """Both models of a cell, with perturbed weights and the same images."""
        bench, device = cls({}, cell.device, cell, on_phase), torch.device(cell.device)
        with bench._phase("build"):
            images = make_images(cell, device)
            names = (cell.pair.baseline, cell.pair.candidate)
            models = [build_model(name, cell, device, seed) for seed, name in enumerate(names)]
        # Compiling begins with the compiler's import, when the workload asks for it.
        with bench._phase(bench._first_phase):
            for role, model in zip(ROLES, models, strict=True):
                bench.workloads[role] = make_workload(model, images, cell)
        return bench

    def first_calls(self) -> None:
        """Call each model once, which compiles what is to be compiled."""
        with self._phase(self._first_phase):
            for role, workload in self.workloads.items():
                start = time.monotonic()
                with observe() as self.ran[role]:
                    workload.run()
                self.clock.synchronise()
                self.first_seconds[role] = time.monotonic() - start
        if self.cell and self.cell.mode != "eager":
            self._add_what_was_compiled_before(self.cell)

    def check(self) -> Check | None:
        """Outputs are finite and of one size, compiled and fused ones equal eager ones, E(X)'s are invariant.

        Returns the errors found, None for callables.

        Raises:
            WrongOutputError: one of these does not hold.
        """
        if not self.ran:
            self.first_calls()
        # These are calls like any other; the check is of what they return.
        with self._phase("warm-up"):
            outputs = {role: workload.logits(*workload.inputs) for role, workload in self.workloads.items()}
        with self._phase("check"):
            theirs, ours = (self._finite_numbers(role, outputs[role]) for role in ROLES)
            if theirs != ours:
                raise WrongOutputError(f"outputs of {theirs} and of {ours} numbers: not the same task")
            if self.cell is None:
                return None
            errors = [self._agreement(self.cell, role, output) for role, output in outputs.items()]
            return Check(
                agreement=max((error for error in errors if error is not None), default=None),
                in_cell=self._invariance(self.cell, outputs["candidate"]),
                tolerance=TOLERANCE["fp32"],
                in_cell_tolerance=TOLERANCE[self.cell.dtype],
            )

    def warm_up(self, seconds: float) -> None:
        """Call each model until its time has settled, for `seconds` at most, and learn its pace."""
        with self._phase("warm-up"):
            for role, workload in self.workloads.items():
                self.pace[role] = median(warm_up(self.clock, workload, seconds=seconds)[-3:])

    def peak_bytes(self) -> dict[str, int]:
        """Peak memory of a call by role."""
        with self._phase("memory"):
            return {role: peak_bytes(workload, self.device) for role, workload in self.workloads.items()}

    def sample(
        self,
        *,
        seconds: float,
        precision: float = 0.01,
        min_rounds: int = 2,
        max_rounds: int = 1000,
        on_round: Callable[[Rounds], object] = lambda rounds: None,
    ) -> Sampled:
        """Time both models in rounds A B B A; called again, it adds to the rounds that are there.

        Args:
            seconds, precision, min_rounds, max_rounds: what ends it, as in `sample_pair`; a precision that
                is missed is flagged.
            on_round: told all rounds after each.
        """
        device_watch = self._watch

        def after_round(rounds: Rounds) -> None:
            device_watch.sample()
            on_round(rounds)

        with self._phase("sampling"):
            sample_pair(
                self.clock,
                *(self.workloads[role] for role in ROLES),
                calls=calls_a_block(min(self.pace.values())),
                precision=precision,
                seconds=seconds,
                min_rounds=min_rounds,
                max_rounds=max_rounds,
                rounds=self._rounds,
                after_round=after_round,
            )
            state = device_watch.report()
        return Sampled(self._rounds, state, find_flags(self._rounds, state, precision=precision))

    @cached_property
    def clock(self) -> Clock:
        """Of the device."""
        return CLOCKS[self.device]()

    @cached_property
    def _watch(self) -> Watch:
        return watch(self.device)

    @property
    def _first_phase(self) -> str:
        return "compile" if self.cell and self.cell.mode != "eager" else "warm-up"

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.on_phase(name)
        start = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = round(self.phases.get(name, 0.0) + time.monotonic() - start, 4)

    def _add_what_was_compiled_before(self, cell: Cell) -> None:
        """What the baseline's blocks ran as, to a candidate with some alike: these are not traced again."""
        kinds = [
            {tuple(map(type, unit.modules())) for unit in compiled_units(self.workloads[role].model, cell)}
            for role in ROLES
        ]
        if kinds[0] & kinds[1]:
            for operation, names in self.ran["baseline"].items():
                self.ran["candidate"][operation] = names | self.ran["candidate"].get(operation, {})

    def _label(self, role: str) -> str:
        return self.cell.labels[ROLES.index(role)] if self.cell else f"the {role}"

    def _finite_numbers(self, role: str, output: Any) -> int:
        """How many numbers a role's output holds, however they are laid out; all must be finite."""
        for tensor in tensors(output):
            if not bool(tensor.isfinite().all()):
                where = f" in {self.cell.dtype}" if self.cell else ""
                shape = tuple(tensor.shape)
                raise WrongOutputError(f"{self._label(role)}'s output {shape} is not finite{where}")
        return sum(tensor.numel() for tensor in tensors(output))

    def _agreement(self, cell: Cell, role: str, logits: Tensor) -> float | None:
        """The error of compiled or other operations against torch's own; None where these ran uncompiled."""
        if cell.mode == "eager" and not has_ours(self.ran.get(role, {})):
            return None
        workload = self.workloads[role]
        with torch.compiler.set_stance("force_eager"), specified(workload.model):
            eager = workload.logits(*workload.inputs)
        how = "compiled" if cell.mode != "eager" else "with our kernels"
        error = ((logits - eager).abs().max() / eager.std()).item()
        return self._small(error, cell, f"{self._label(role)} {how} differs from the eager operations")

    def _invariance(self, cell: Cell, logits: Tensor) -> float | None:
        """The candidate's error of invariance on the cell's own images; None where it promises none."""
        if not parse_name(cell.pair.candidate).invariant:
            return None
        workload = self.workloads["candidate"]
        error = invariance_error(workload.logits, workload.inputs[0], logits)
        return self._small(error, cell, f"{cell.labels[1]} is not invariant in {cell.dtype} {cell.mode}")

    @staticmethod
    def _small(error: float, cell: Cell, otherwise: str) -> float:
        tolerance = TOLERANCE[cell.dtype]
        # Written so that NaN fails.
        if not error <= tolerance:
            raise WrongOutputError(f"{otherwise}: relative error {error:.1e}, allowed {tolerance:.0e}")
        return error
