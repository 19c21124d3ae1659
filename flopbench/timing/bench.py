"""One pair, or one model, on one device: called, checked, warmed up and sampled, whoever asks for it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from operator import sub
from statistics import median
from typing import Any, NamedTuple

import torch

from flopbench.cells import Cell
from flopbench.kernels import Ran
from flopbench.kernels.dispatch import observe, together
from flopbench.modes import COMPILING, ENGINES, DeviceKind
from flopbench.private import compiled_graphs
from flopbench.results import Check, CompileCache, Flag
from flopbench.timing.checks import Checks
from flopbench.timing.clock import CLOCKS, CpuClock, CudaClock
from flopbench.timing.compiler import start_compiler, start_libraries
from flopbench.timing.device_state import Watch, watch
from flopbench.timing.energy import Power
from flopbench.timing.flags import find_flags
from flopbench.timing.memory import Peak, peak_memory
from flopbench.timing.outputs import state_of
from flopbench.timing.pacing import PACING, Pace
from flopbench.timing.sampling import ROLES, Rounds, sample_rounds, warm_up
from flopbench.timing.serving import single_calls
from flopbench.timing.uncompiled import compiled_again, flagged, left_out
from flopbench.timing.workload import (
    Workload,
    build_model,
    cell_inputs,
    compiled_kinds,
    make_workload,
)


class Sampled(NamedTuple):
    """All rounds of a pair, what the device did meanwhile (JSON values), and what is questionable in them.

    `power` is by role, of those models of which it can be known.
    """

    rounds: Rounds
    state: dict[str, Any]
    flags: tuple[Flag, ...]
    power: dict[str, Power]


@dataclass
class Bench:
    """A pair that is taken through its steps in order: first calls, check, warm-up, (memory,) sampling.

    A model alone, as the baseline, takes the same steps but for the check, which compares two.

    Attributes:
        workloads: the models by role, baseline and candidate.
        device: on which both run.
        cell: what the models are built for; None for callables, which have no eager twin and no symmetry.
        on_phase: told the name of each phase when it begins.
        same, tolerance: what callables have to give alike, as `Checks` has it; of a cell its pair says so.
        phases: seconds of wall time by phase.
        first_seconds: by role, of the first call, compilation included.
        compile_cache: by role, of compiled models, how the first call came by its code.
        not_compiled: by role, of compiled models, what does not run compiled (`timing.uncompiled`).
        ran: by role, what each operation of ours was seen to run as in the first call (`kernels.dispatch`).
        pace: by role, seconds of the timed step once warm.
        unchecked: a flag for each thing that the checks could not judge.
    """

    workloads: dict[str, Workload]
    device: DeviceKind
    cell: Cell | None = None
    on_phase: Callable[[str], object] = lambda name: None
    same: str | Callable[[Any, Any], Any] | None = None
    tolerance: float | None = None
    phases: dict[str, float] = field(default_factory=dict, init=False)
    first_seconds: dict[str, float] = field(default_factory=dict, init=False)
    compile_cache: dict[str, CompileCache] = field(default_factory=dict, init=False)
    not_compiled: dict[str, Counter[str]] = field(default_factory=dict, init=False)
    ran: dict[str, Ran] = field(default_factory=dict, init=False)
    pace: dict[str, float] = field(default_factory=dict, init=False)
    unchecked: list[Flag] = field(default_factory=list, init=False)
    _writers: list[str] = field(default_factory=list, init=False)
    _inferred: dict[str, Any] = field(default_factory=dict, init=False)
    _whole: dict[str, float] = field(default_factory=dict, init=False)
    _rounds: Rounds = field(default_factory=Rounds, init=False)

    @classmethod
    def of(cls, cell: Cell, on_phase: Callable[[str], object] = lambda name: None) -> "Bench":
        """Both models of a cell, called with the same inputs."""
        bench, device = cls({}, cell.device, cell, on_phase), torch.device(cell.device)
        with bench._phase("build"):
            inputs = cell_inputs(cell, device)
            names = (cell.pair.baseline, cell.pair.candidate)
            models = [build_model(name, cell, device, seed) for seed, name in enumerate(names)]
        # Compiling begins with the compiler's import, when the workload asks for it.
        with bench._phase(bench._first_phase):
            for role, model in zip(ROLES, models, strict=True):
                bench.workloads[role] = make_workload(model, inputs, cell)
        return bench

    def first_calls(self) -> None:
        """Call each model once, which compiles what is to be compiled."""
        compiles = self.cell is not None and self.cell.mode in COMPILING
        if self.cell and self.cell.pair.same is not None and self.cell.pass_ != "forward":
            # Before a step of training moves weights that were the same.
            with self._phase("check"):
                self._inferred = {role: self._checks.inference(role) for role in ROLES}
        with self._phase(self._first_phase):
            # What a process starts but once is not part of what the model that comes first takes.
            if self.cell:
                start_libraries(self.device)
            if self.cell and compiles:
                start_compiler(self.device, gradients=self.cell.pass_ != "forward")
            for role, workload in self.workloads.items():
                before = state_of(workload.inputs.tensors)
                graphs = compiled_graphs() if compiles else None
                start = time.monotonic()
                with observe() as self.ran[role], left_out() if compiles else nullcontext() as found:
                    self._first_call(role, workload)
                self.clock.synchronise()
                self.first_seconds[role] = time.monotonic() - start
                if workload.deployed:
                    # What it consists of was decided when it was exported.
                    self.ran[role] = workload.deployed.ran
                if graphs and found is not None:
                    self.compile_cache[role] = _cache(*map(sub, compiled_graphs(), graphs))
                    with compiled_again() as again:
                        workload.run()
                    self.not_compiled[role] = found + again
                if state_of(workload.inputs.tensors) != before:
                    self._writers.append(role)
        if self.cell and compiles:
            self._add_what_was_compiled_before(self.cell)

    def _first_call(self, role: str, workload: Workload) -> None:
        """A call that says of an error which network it was, and what that was called with."""
        try:
            workload.run()
        except Exception as error:
            if self.cell:
                error.add_note(f"{self.cell.labels[ROLES.index(role)]} called with {workload.inputs}")
            raise

    def check(self) -> Check | None:
        """Every call sees the same input, and what it returns is right (`Checks.of`).

        What cannot be judged is `unchecked`.

        Returns:
            The errors found, None for callables.

        Raises:
            WrongOutputError: it is not.
        """
        if not self.ran:
            self.first_calls()
        self._checks.refuse(self._writers)
        # These are calls like any other; the check is of what they return.
        with self._phase("warm-up"):
            outputs = {role: self._checks.output(role) for role in ROLES}
        with self._phase("check"):
            return self._checks.of(outputs, self._inferred or outputs)

    def warm_up(self, seconds: float) -> None:
        """Call each model until its time has settled, and learn its pace.

        For `seconds` at most, but a GPU not for less than its clocks take (`timing.pacing`).
        """
        with self._phase("warm-up"):
            for role, workload in self.workloads.items():
                start = self.clock.now()
                calls = warm_up(self.clock, workload, seconds=seconds, pacing=PACING[self.device])
                self.pace[role] = median(calls[-3:])
                self._whole[role] = max(self.pace[role], (self.clock.now() - start) / len(calls))

    def peak_memory(self) -> dict[str, Peak]:
        """Peak memory of a call by role."""
        with self._phase("memory"):
            return {role: peak_memory(workload, self.device) for role, workload in self.workloads.items()}

    def sample(
        self,
        *,
        seconds: float,
        precision: float = 0.01,
        min_rounds: int = 2,
        max_rounds: int = 1000,
        on_round: Callable[[Rounds], object] = lambda rounds: None,
    ) -> Sampled:
        """Time both models in rounds A B B A, or one alone; called again, it adds to what is there.

        Args:
            seconds, precision, min_rounds, max_rounds: what ends it, as in `sample_rounds`; a precision that
                is missed is flagged.
            on_round: told all rounds after each.
        """
        device_watch = self._watch
        pacing = PACING[self.device]
        plan = pacing.plan(
            {role: Pace(self.pace[role], self._whole[role]) for role in self.workloads}, seconds
        )
        self.clock.glance = device_watch.glance
        with self._phase("sampling"):
            sample_rounds(
                self.clock,
                self.workloads,
                plan=plan,
                at_least=pacing.sampling,
                precision=precision,
                seconds=seconds,
                min_rounds=min_rounds,
                max_rounds=max_rounds,
                rounds=self._rounds,
                after_round=on_round,
                turn=device_watch.turn,
            )
            state = device_watch.report()
        if flushed := max(workload.flushed_bytes for workload in self.workloads.values()):
            state["cache_flushed_bytes"] = flushed
        flags = find_flags(self._rounds, state, precision=precision, shortened=plan.shortened)
        # What empties the caches between the calls takes energy too, which is none of the model's.
        power = {} if flushed else device_watch.power()
        labels = dict(zip(ROLES, self.cell.labels, strict=True)) if self.cell else {}
        uncompiled = [
            flag for role, what in self.not_compiled.items() for flag in flagged(labels[role], what)
        ]
        return Sampled(self._rounds, state, (*self.unchecked, *uncompiled, *flags), power)

    def single_calls(self, seconds: float) -> dict[str, list[float]]:
        """Latencies of warm calls, each waited for before the next is made, by role (`timing.serving`)."""
        with self._phase("serving"):
            return single_calls(self.clock, self.workloads, self._whole, seconds)

    @cached_property
    def clock(self) -> CpuClock | CudaClock:
        """Of the device."""
        return CLOCKS[self.device]()

    @property
    def _checks(self) -> Checks:
        same = (self.cell.pair.same, self.cell.pair.tolerance) if self.cell else (self.same, self.tolerance)
        return Checks(self.workloads, self.device, self.cell, self.ran, self.unchecked, *same)

    @cached_property
    def _watch(self) -> Watch:
        return watch(self.device)

    @property
    def _first_phase(self) -> str:
        if self.cell and self.cell.mode in ENGINES:
            return "export"
        return "compile" if self.cell and self.cell.mode in COMPILING else "warm-up"

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.on_phase(name)
        start = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = round(self.phases.get(name, 0.0) + time.monotonic() - start, 4)

    def _add_what_was_compiled_before(self, cell: Cell) -> None:
        """What was seen of the baseline's blocks, to a candidate with some alike, not traced again."""
        kinds = [compiled_kinds(self.workloads[role].model, cell.mode) for role in self.workloads]
        if len(kinds) > 1 and kinds[0] & kinds[1]:
            self.ran["candidate"] = together(self.ran["baseline"], self.ran["candidate"])
            self.not_compiled["candidate"] |= self.not_compiled["baseline"]


def _cache(compiled: int, taken: int) -> CompileCache:
    """Where a call's graphs came from, of which it compiled some and took some from the cache."""
    if not compiled:
        return "warm" if taken else "shared"
    return "mixed" if taken else "cold"
