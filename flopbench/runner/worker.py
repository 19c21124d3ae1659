"""What happens inside a worker process: look at the device, inspect a pair, measure a cell."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch

# Counting, laying out on the meta device and compiling all import it, a second each time: the fork server
# imports it once for all processes. It starts no thread and touches no GPU.
import torch._dynamo
from torch import Tensor

from flopbench.flops import count_forward
from flopbench.kernels.dispatch import specified
from flopbench.kernels.inductor import missing_compiler
from flopbench.models.catalog import parse_name
from flopbench.models.factory import create_model, num_parameters, perturb
from flopbench.results import CellRecord, Check, Environment, ModelResult, Peaks
from flopbench.runner.jobs import PairFacts, Plan
from flopbench.runner.process import Report
from flopbench.suites import Cell, DeviceKind, DType, Pair
from flopbench.testing.invariance import TOLERANCE, invariance_error, photo, random_images
from flopbench.timing.clock import CLOCKS
from flopbench.timing.device_state import watch
from flopbench.timing.environment import describe
from flopbench.timing.flags import find_flags
from flopbench.timing.memory import peak_bytes
from flopbench.timing.peaks import measure_peaks
from flopbench.timing.sampling import Rounds, calls_a_block, sample_pair, warm_up
from flopbench.timing.workload import Workload, build_model, make_images, make_workload

ROLES = ("baseline", "candidate")

# Largest |compiled − eager| over the deviation of the logits that is rounding, by dtype: as for flopping.
AGREEMENT = TOLERANCE


def probe(report: Report, device: str | None) -> Environment:
    """The environment, seen from a worker."""
    return describe(device)


def peaks(report: Report, device: DeviceKind, dtypes: tuple[DType, ...]) -> Peaks:
    """The device's measured peaks."""
    return measure_peaks(device, dtypes)


def inspect(
    report: Report, pair: Pair, image_size: tuple[int, int], num_classes: int, device: DeviceKind
) -> PairFacts:
    """Parameters and MACs of both models, and the candidate's invariance with perturbed weights in fp32."""
    results = {}
    for role, label in zip(ROLES, pair.labels, strict=True):
        name = getattr(pair, role)
        with torch.device("meta" if parse_name(name).spec else "cpu"):
            model = create_model(name, image_size, num_classes)
        count = count_forward(model, image_size)
        results[role] = ModelResult(
            name=name,
            label=label,
            parameters=num_parameters(model),
            macs=count.macs,
            uncounted_operators=count.uncounted,
        )
    if not parse_name(pair.candidate).invariant:
        return PairFacts(**results, tolerance=TOLERANCE["fp32"])
    # The class has checked that it can be laid out without values; the values are the perturbation's.
    with torch.device("meta"):
        model = create_model(pair.candidate, image_size, num_classes)
    model = perturb(model.to_empty(device=device)).eval()
    return PairFacts(
        **results,
        tolerance=TOLERANCE["fp32"],
        random_error=invariance_error(model, random_images(2, image_size, device=device)),
        photo_error=invariance_error(model, photo(image_size, device=device)),
    )


class WrongOutputError(Exception):
    """The model's output is not what it must be: the cell fails before any timing."""


def measure(report: Report, cell: Cell, replicate: int, facts: PairFacts, plan: Plan) -> CellRecord:
    """Measure one cell.

    Returns:
        Its record: `ok`, or `failed` where an output is wrong. Errors and memory are the caller's.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    phases: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        report("phase", name)
        start = time.monotonic()
        try:
            yield
        finally:
            phases[name] = round(phases.get(name, 0.0) + time.monotonic() - start, 4)

    require_compiler(cell)
    device = torch.device(cell.device)
    clock = CLOCKS[cell.device]()
    with phase("build"):
        images = make_images(cell, device)
        models = {
            role: build_model(getattr(cell.pair, role), cell, device, seed) for seed, role in enumerate(ROLES)
        }

    def record(**fields: Any) -> CellRecord:
        return CellRecord(
            cell=cell,
            replicate=replicate,
            started=started,
            wall_seconds=round(time.monotonic() - began, 3),
            phases=phases,
            **fields,
        )

    workloads: dict[str, Workload] = {}
    first_calls: dict[str, float] = {}
    logits: dict[str, Tensor] = {}
    # Compiling begins with the compiler's import, when the workload asks for it.
    with phase("compile" if cell.mode != "eager" else "warm-up"):
        for role, model in models.items():
            workloads[role] = make_workload(model, images, cell)
            start = time.monotonic()
            workloads[role].run()
            clock.synchronise()
            first_calls[role] = time.monotonic() - start
    with phase("warm-up"):
        for role, workload in workloads.items():
            logits[role] = workload.logits(images)
    with phase("check"):
        try:
            check = check_outputs(cell, workloads, images, logits, facts)
        except WrongOutputError as error:
            return record(
                status="failed", reason=str(error), baseline=facts.baseline, candidate=facts.candidate
            )
    left = max(1.0, min(plan.seconds, plan.allowance - (time.monotonic() - began)))
    with phase("warm-up"):
        warm = {role: warm_up(clock, w, seconds=0.1 * left) for role, w in workloads.items()}
    with phase("memory"):
        peaks = {role: peak_bytes(w, cell.device) for role, w in workloads.items()}
    left = max(1.0, min(plan.seconds, plan.allowance - (time.monotonic() - began)))
    with phase("sampling"):
        device_watch = watch(cell.device)

        def after_round(rounds: Rounds) -> None:
            device_watch.sample()
            report("rounds", (len(rounds.baseline), rounds.speedup))

        rounds = sample_pair(
            clock,
            *workloads.values(),
            calls=calls_a_block(min(warm["baseline"][-1], warm["candidate"][-1])),
            precision=plan.precision,
            seconds=left,
            after_round=after_round,
        )
        state = device_watch.report()

    def result(role: str) -> ModelResult:
        compiled = max(0.0, first_calls[role] - warm[role][-1]) if cell.mode != "eager" else None
        return getattr(facts, role).model_copy(
            update={
                "peak_bytes": peaks[role],
                "compile_seconds": compiled,
                "samples": _rows(getattr(rounds, role)),
                "host_samples": _rows(getattr(rounds, f"{role}_host")),
            }
        )

    return record(
        status="ok",
        baseline=result("baseline"),
        candidate=result("candidate"),
        speedup=rounds.speedup,
        stop=rounds.stop,
        check=check,
        flags=find_flags(rounds, state, precision=plan.precision),
        device_state=state,
    )


def attempt(report: Report, cell: Cell, role: str, limit_bytes: int | None) -> int:
    """One pass of one of a cell's models at the cell's batch size; its peak memory in bytes.

    On a CPU the process may hold `limit_bytes` and no more, so that what does not fit fails here
    instead of driving the machine into swap.
    """
    if limit_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    device = torch.device(cell.device)
    model = build_model(getattr(cell.pair, role), cell, device)
    workload = make_workload(model, make_images(cell, device), cell)
    workload.run()
    return peak_bytes(workload, cell.device)


def check_outputs(
    cell: Cell, workloads: dict[str, Workload], images: Tensor, outputs: dict[str, Tensor], facts: PairFacts
) -> Check:
    """Both models' outputs are finite, compiled and fused ones equal eager ones, and E(X)'s are invariant.

    Args:
        cell: what is measured.
        workloads: by role.
        images: of the cell.
        outputs: logits of these images by role, computed as the cell's calls compute them.
        facts: what is known of the pair already.

    Raises:
        WrongOutputError: one of these does not hold.
    """
    agreement = in_cell = None
    for role, workload in workloads.items():
        label = getattr(facts, role).label
        logits = outputs[role]
        if not bool(logits.isfinite().all()):
            raise WrongOutputError(f"{label} gives logits that are not finite in {cell.dtype}")
        fused = cell.impl == "fused" or (cell.impl == "auto" and cell.device == "cuda")
        if fused or cell.mode != "eager":
            with torch.compiler.set_stance("force_eager"), specified(workload.model):
                eager = workload.logits(images)
            error = ((logits - eager).abs().max() / eager.std()).item()
            agreement = max(error, agreement or 0.0)
            if not agreement <= AGREEMENT[cell.dtype]:
                raise WrongOutputError(
                    f"{label} {'compiled' if cell.mode != 'eager' else 'with fused kernels'} differs from "
                    f"the eager operations by {error:.1e}, "
                    f"at most {AGREEMENT[cell.dtype]:.0e} allowed"
                )
    if parse_name(cell.pair.candidate).invariant:
        in_cell = invariance_error(workloads["candidate"].logits, images, outputs["candidate"])
        if not in_cell <= TOLERANCE[cell.dtype]:
            raise WrongOutputError(
                f"{facts.candidate.label} is not invariant in {cell.dtype} {cell.mode}: relative error "
                f"{in_cell:.1e}, at most {TOLERANCE[cell.dtype]:.0e} allowed"
            )
    return Check(
        random=facts.random_error,
        photo=facts.photo_error,
        in_cell=in_cell,
        agreement=agreement,
        tolerance=facts.tolerance,
        in_cell_tolerance=TOLERANCE[cell.dtype],
    )


def require_compiler(cell: Cell) -> None:
    """Raise unless what compiled cells need on a CPU, a C++ compiler, is there."""
    if cell.device == "cpu" and (cell.mode != "eager" or cell.impl == "fused"):
        lacking = missing_compiler()
        if lacking is not None:
            asked = "torch.compile needs" if cell.mode != "eager" else "fused kernels need"
            remedy = "--mode eager" if cell.mode != "eager" else "--impl eager"
            raise RuntimeError(f"{asked} a C++ compiler ({lacking}): install one, or {remedy}")


def _rows(samples: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    """Samples rounded to a hundredth of a nanosecond, or to nine digits: what a file needs to hold."""
    return tuple(tuple(float(f"{value:.9g}") for value in row) for row in samples if not math.isnan(row[0]))
