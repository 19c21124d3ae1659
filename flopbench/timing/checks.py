"""Whether both models of a pair compute what they must: checked before any of their times is taken."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flopbench.cells import AXES, Cell
from flopbench.errors import FlopbenchError, in_one_line
from flopbench.flops.meta import evaluating
from flopbench.inputs import Inputs
from flopbench.kernels import Ran, has_ours
from flopbench.kernels.dispatch import specified
from flopbench.models.catalog import GIVEN
from flopbench.models.foreign import load
from flopbench.models.tasks import TASKS
from flopbench.modes import DeviceKind
from flopbench.results import Check, Flag
from flopbench.structures import part, tensors
from flopbench.symmetries.actions import OF_KIND
from flopbench.testing.invariance import TOLERANCE, equivariance_errors, promised
from flopbench.timing.outputs import (
    in_common,
    numbers,
    relative_error,
    relative_errors,
    seeded,
    shapes,
    strange_parts,
)
from flopbench.timing.sampling import ROLES
from flopbench.timing.workload import Workload, cell_inputs

_NAMES = {torch.float64: "fp64", torch.float16: "fp16", torch.bfloat16: "bf16"}
# So many parts of an output are named in a line.
_FEW = 4


class WrongOutputError(AssertionError):
    """An output is not what it must be, so that no time of this pair would mean anything."""


@dataclass
class Checks:
    """The checks of a pair.

    Attributes:
        workloads: the models by role, baseline and candidate.
        device: on which both run.
        cell: what the models are built for; None for callables.
        ran: by role, what each operation of ours was seen to run as.
        unchecked: gets a flag for each thing that could not be judged.
        same: what both have to give, as in `Pair.same`, or a function of both outputs.
        tolerance: of that, as in `Pair.tolerance`.
    """

    workloads: dict[str, Workload]
    device: DeviceKind
    cell: Cell | None
    ran: Mapping[str, Ran]
    unchecked: list[Flag]
    same: str | Callable[[Any, Any], Any] | None = None
    tolerance: float | None = None

    def output(self, role: str, seed: int = 0) -> Any:
        """What a role's timed call returns; of a cell with random numbers drawn from `seed` on."""
        workload = self.workloads[role]
        with seeded(self.device, seed) if self.cell else nullcontext():
            return workload.logits(workload.inputs)

    def inference(self, role: str) -> Any:
        """What a role's model returns in evaluation mode, uncompiled: what `Pair.same` is about."""
        with evaluating(self.workloads[role].model), torch.compiler.set_stance("force_eager"):
            return self.output(role)

    def of(self, outputs: Mapping[str, Any], inferred: Mapping[str, Any]) -> Check | None:
        """Outputs are finite and of one size, compiled and fused ones equal eager ones, candidates have the
        equivariance that they promise, and what a pair says is the same is the same.

        Args:
            outputs: by role, what the timed calls return.
            inferred: by role, what inference returns.

        Returns:
            The errors found, None for callables.

        Raises:
            WrongOutputError: one of these does not hold.
        """
        self._one_task(outputs)
        same, cell = self._same(inferred), self.cell
        if cell is None:
            return None
        errors = {role: self._agreement(cell, role, outputs[role]) for role in ROLES}
        agreements = {role: max(own) for role, own in errors.items() if own}
        return Check(
            agreement=max(agreements.values(), default=None),
            agreements=agreements,
            in_cell=self._equivariance(cell, outputs["candidate"]),
            same=same,
            tolerance=TOLERANCE["fp32"],
            in_cell_tolerance=TOLERANCE[cell.dtype],
        )

    def refuse(self, writers: list[str]) -> None:
        """Those roles whose models write into their inputs; of callables it is noted.

        Raises:
            WrongOutputError: there is one.
        """
        for role in writers:
            writes = f"{self._label(role)} writes into its input, so that no two calls see the same"
            remedy = "let it work on a copy, x = x.clone()"
            if self.cell:
                raise WrongOutputError(f"{writes}: {remedy}")
            self._cannot_judge(writes, remedy)

    def _label(self, role: str) -> str:
        return self.cell.labels[ROLES.index(role)] if self.cell else f"the {role}"

    def _cannot_judge(self, message: str, remedy: str) -> None:
        flag = Flag(kind="unchecked", message=message, remedy=remedy)
        if flag not in self.unchecked:
            self.unchecked.append(flag)

    def _one_task(self, outputs: Mapping[str, Any]) -> None:
        """Both give as many numbers. Networks of somebody's own may differ, and it is noted in what."""
        theirs, ours = (self._finite_numbers(role, outputs[role]) for role in ROLES)
        if theirs == ours or any(map(self._inputs_decide_on_sizes, ROLES)):
            return
        both, *alone = in_common(*(outputs[role] for role in ROLES))
        if (
            all(name.spec for name in self.cell.pair.names)
            if self.cell
            else not both or alone[0].keys() & alone[1].keys()
        ):
            raise WrongOutputError(f"outputs of {theirs} and of {ours} numbers: not the same task")
        self._note_what_only_one_gives(*alone)

    def _note_what_only_one_gives(self, *alone: Mapping[str, Tensor]) -> None:
        given = [
            f"only {self._label(role)} gives {_named(parts)}"
            for role, parts in zip(ROLES, alone, strict=True)
            if parts
        ]
        if given:
            self._cannot_judge(
                f"{'; '.join(given)}: this was not compared", "return the same from both to have it compared"
            )

    def _inputs_decide_on_sizes(self, role: str) -> bool:
        """Whether a cell's output is larger for some inputs than for others; if so, it is noted.

        A detector gives as many boxes as it finds: that another finds more, or finds one more by rounding,
        makes neither wrong.
        """
        if self.cell is None:
            return False
        workload = self.workloads[role]
        others = cell_inputs(self.cell, torch.device(self.device), seed=1)
        if shapes(workload.logits(workload.inputs)) == shapes(workload.logits(others)):
            return False
        self._cannot_judge(
            f"{self._label(role)}: sizes of the output depend on the inputs, unlike sizes were not compared",
            "return all that it chooses from to have outputs compared",
        )
        return True

    def _finite_numbers(self, role: str, output: Any) -> int:
        """How many numbers a role's output holds, however they are laid out; all must be finite."""
        found, strange = tensors(output), strange_parts(output)
        if strange or not sum(tensor.numel() for tensor in found):
            what = f"{', '.join(strange)} in the output" if strange else "an output without numbers"
            self._cannot_judge(f"{self._label(role)}: {what} cannot be checked", "return tensors")
        for tensor in found:
            if not bool(numbers(tensor).isfinite().all()):
                where = f" in {self.cell.dtype}" if self.cell else ""
                shape = tuple(tensor.shape)
                raise WrongOutputError(f"{self._label(role)}'s output {shape} is not finite{where}")
        return sum(tensor.numel() for tensor in found)

    def _agreement(self, cell: Cell, role: str, output: Any) -> list[float]:
        """The errors of compiled or other operations against torch's own; none where these ran uncompiled.

        An error per tensor of the output, but of those that cannot be judged: what varies from call to
        call, and whole numbers that are not the same, for rounding turns them by one or more.

        Raises:
            WrongOutputError: an error is beyond the cell's tolerance.
        """
        if cell.mode == "eager" and not has_ours(self.ran.get(role, {})):
            return []

        def eager(seed: int) -> Any:
            workload = self.workloads[role]
            with torch.compiler.set_stance("force_eager"), specified(workload.model):
                if workload.deployed is None:
                    return self.output(role, seed)
                with torch.no_grad():
                    return workload.inputs.call(workload.model)

        how = "with our kernels" if cell.mode == "eager" else AXES["mode"].say(cell.mode)
        how = f"{self._label(role)} {how}"
        wanted, tolerance = eager(0), TOLERANCE[cell.dtype]
        errors = relative_errors(output, wanted)
        if shapes(output) != shapes(wanted):
            if self._inputs_decide_on_sizes(role):
                return []
            raise WrongOutputError(f"{how} gives tensors of other shapes than the eager operations")
        if max(errors, default=0.0) <= tolerance:
            return errors
        # A compiler draws its own random numbers, whatever the seed; and a pass may leave something in the
        # network that changes what the next one gives.
        own = relative_errors(eager(1), wanted)
        judged = []
        for tensor, error, varies in zip(tensors(wanted), errors, own, strict=False):
            if error <= tolerance:
                judged.append(error)
            elif varies > tolerance:
                self._cannot_judge(
                    f"{how}: an output {tuple(tensor.shape)} was not compared with the eager operations', "
                    "which give another at each call (random numbers, or what earlier calls left)",
                    "switch dropout off to have it compared",
                )
            elif not (tensor.is_floating_point() or tensor.is_complex()):
                self._cannot_judge(
                    f"{how}: whole numbers {tuple(tensor.shape)} differ from the eager operations'",
                    "return what they were rounded from",
                )
            else:
                judged.append(_small(error, tolerance, f"{how} differs from the eager operations"))
        return judged

    def _equivariance(self, cell: Cell, output: Any) -> float | None:
        """The candidate's largest error of equivariance in the cell's task, on the cell's own images; None
        where it promises none.

        Raises:
            WrongOutputError: an error is beyond the cell's tolerance.
        """
        generators = promised(cell.pair.candidate)
        if not generators:
            return None
        workload, task = self.workloads["candidate"], TASKS[cell.task]
        # Networks of ours take images, and nothing else.
        (images,) = workload.inputs.tensors
        errors = equivariance_errors(
            lambda moved: workload.logits(Inputs(moved)), images, generators, OF_KIND[task.kind], output
        )
        where, allowed = f"in {cell.dtype} {cell.mode}", TOLERANCE[cell.dtype]
        return max(
            _small(error, allowed, f"{cell.labels[1]} is not {task.promise} under a {generator} {where}")
            for generator, error in errors.items()
        )

    def _same(self, inferred: Mapping[str, Any]) -> float | None:
        """The largest error of what has to be the same; None without such, or where a function judges.

        Raises:
            WrongOutputError: it is not the same, or one of the outputs lacks it.
            FlopbenchError: the function cannot be found, or says neither yes nor no.
        """
        name = self.same
        if name is None:
            return None
        outputs = [inferred[role] for role in ROLES]
        apart = f"{self._label('candidate')} does not give the same as {self._label('baseline')}"
        if not isinstance(name, str) or ":" in name:
            _judged(name, outputs, apart)
            return None
        if name != "output":
            outputs = [self._part(role, inferred[role], name) for role in ROLES]
        both, *alone = in_common(*outputs)
        for path in alone[0].keys() & alone[1].keys():
            theirs, ours = (tuple(parts[path].shape) for parts in alone)
            raise WrongOutputError(f"{apart}: {_path(path, name)} is {ours}, not {theirs}")
        if not both:
            raise WrongOutputError(f"{apart}: the outputs have no tensor in common")
        self._note_what_only_one_gives(*alone)
        errors = []
        for path, theirs, ours in both:
            dtype = self.cell.dtype if self.cell else _NAMES.get(theirs.dtype, "fp32")
            allowed = self.tolerance or TOLERANCE[dtype]
            errors.append(
                _small(relative_error(ours, theirs), allowed, f"{apart}: {_path(path, name)} differs")
            )
        return max(errors)

    def _part(self, role: str, output: Any, name: str) -> Any:
        try:
            return part(output, name)
        except LookupError as error:
            raise WrongOutputError(f"{self._label(role)}: {error.args[0]}") from None


def _judged(function: str | Callable[..., Any], outputs: list[Any], apart: str) -> None:
    """The word of the user's own function, or the one of that name, on both outputs."""
    name = function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)
    name = "the function `same`" if name == f"{GIVEN}:same" else name
    judge: Any = load(function) if isinstance(function, str) else function
    try:
        verdict = judge(*outputs)
        holds = verdict is None or bool(verdict)
    except AssertionError as error:
        raise WrongOutputError(f"{apart}, by {name}: {in_one_line(error)}") from None
    except (Exception, SystemExit) as error:
        raise FlopbenchError(f"{name} cannot compare the outputs: {in_one_line(error)}") from error
    if not holds:
        raise WrongOutputError(f"{apart}, by {name}")


def _small(error: float, tolerance: float, otherwise: str) -> float:
    # Written so that NaN fails.
    if not error <= tolerance:
        raise WrongOutputError(f"{otherwise}: relative error {error:.1e}, allowed {tolerance:.0e}")
    return error


def _path(path: str, within: str) -> str:
    """How a part is called: `logits`, `logits.0`; all of an output is "output"."""
    return ".".join(filter(None, (within if within != "output" else "", path))) or "output"


def _named(parts: Mapping[str, Tensor]) -> str:
    named = [f"{_path(path, 'output')} {tuple(tensor.shape)}" for path, tensor in parts.items()]
    more = f" and {len(named) - _FEW} more" if len(named) > _FEW else ""
    return ", ".join(named[:_FEW]) + more
