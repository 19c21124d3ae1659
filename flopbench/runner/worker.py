"""What happens inside a worker process: look at the device, inspect a pair, measure a cell."""

import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

# Counting, laying out on the meta device and compiling all import it, a second each time: the fork server
# imports it once for all processes. It starts no thread and touches no GPU.
import torch._dynamo
from torch import nn

from flopbench.cells import Cell
from flopbench.errors import in_one_line, out_of_memory
from flopbench.flops.audit import count_macs
from flopbench.inputs import are_fixed, inputs_for
from flopbench.kernels.inductor import missing_compiler
from flopbench.models.catalog import parse_name
from flopbench.models.factory import create_model, num_parameters, perturb
from flopbench.models.tasks import TASKS
from flopbench.modes import COMPILING, ENGINES, DeviceKind, DType
from flopbench.private import compile_for_others
from flopbench.results import CellRecord, Environment, Flag, ModelResult, Peaks, Serving
from flopbench.runner.jobs import LEAST_SAMPLING, PairFacts, Plan
from flopbench.runner.needs import needs_cpp, unmet
from flopbench.runner.process import Report
from flopbench.symmetries.actions import OF_KIND
from flopbench.testing.invariance import TOLERANCE, equivariance_errors, photo, promised, random_images
from flopbench.timing.bench import ROLES, Bench
from flopbench.timing.checks import WrongOutputError
from flopbench.timing.environment import describe
from flopbench.timing.memory import peak_memory
from flopbench.timing.peaks import measure_peaks
from flopbench.timing.serving import SHARE, Stored, stored
from flopbench.timing.workload import build_model, cell_inputs, make_workload, set_precision


def probe(report: Report, device: str | None) -> Environment:
    """The environment, seen from a worker."""
    return describe(device)


def peaks(report: Report, device: DeviceKind, dtypes: tuple[DType, ...]) -> Peaks:
    """The device's measured peaks."""
    return measure_peaks(device, dtypes)


def inspect(report: Report, cell: Cell) -> PairFacts:
    """Parameters and MACs of both models, and the candidate's equivariance with perturbed weights in fp32."""
    results, flags = {}, list[Flag]()
    pair, image_size = cell.pair, cell.image_size
    for role, label in zip(ROLES, cell.labels, strict=True):
        name = getattr(pair, role)
        with torch.device("meta" if parse_name(name).spec else "cpu"):
            model = create_model(name, image_size, cell.num_classes, **cell.options(name))
        macs, uncounted = None, {}
        try:
            macs, uncounted = _macs(model, cell)
        except (Exception, SystemExit) as error:
            if out_of_memory(error) or parse_name(name).spec:
                raise
            flags.append(
                Flag(
                    kind="uncounted",
                    message=f"the MACs of {label} could not be counted: {in_one_line(error)}",
                    remedy="its times stand by themselves; a network that torch can trace is counted",
                )
            )
        results[role] = ModelResult(
            name=name,
            label=label,
            parameters=num_parameters(model),
            macs=macs,
            uncounted_operators=uncounted,
        )
    known = {**results, "task": cell.task, "tolerance": TOLERANCE["fp32"], "flags": tuple(flags)}
    generators = promised(pair.candidate)
    if not generators:
        return PairFacts(**known)
    # The class has checked that it can be laid out without values; the values are the perturbation's.
    with torch.device("meta"):
        model = create_model(pair.candidate, image_size, cell.num_classes, **cell.options(pair.candidate))
    model = perturb(model.to_empty(device=cell.device)).eval()
    set_precision("fp32")
    action = OF_KIND[TASKS[cell.task].kind]
    random, portrait = random_images(2, image_size, device=cell.device), photo(image_size, device=cell.device)
    return PairFacts(
        **known,
        random_errors=equivariance_errors(model, random, generators, action),
        photo_errors=equivariance_errors(model, portrait, generators, action),
    )


def _macs(model: nn.Module, cell: Cell) -> tuple[int, dict[str, int]]:
    """Of one item, and the operators that were left out; where the weights have values, for these values."""
    # Inputs that no function makes come in one batch size, the cell's.
    items = cell.batch_size if are_fixed(cell.pair) else 1
    count = count_macs(model, inputs_for(model, cell.pair, items, cell.image_size), items)
    return count.macs, count.uncounted


def measure(report: Report, cell: Cell, replicate: int, facts: PairFacts, plan: Plan) -> CellRecord:
    """Measure one cell.

    Returns:
        Its record: `ok`, or `failed` where an output is wrong. Errors and memory are the caller's.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")

    def left() -> float:
        least = min(plan.seconds, LEAST_SAMPLING)
        return max(least, min(plan.seconds, plan.allowance - (time.monotonic() - began)))

    require_compiler(cell)
    weights: dict[str, Stored] = {}
    serving = plan.serving and cell.pass_ == "forward"
    if serving and cell.mode not in ENGINES:
        report("phase", "load")
        weights = stored(cell)
    bench = Bench.of(cell, partial(report, "phase"))

    def record(**fields: Any) -> CellRecord:
        return CellRecord(
            cell=cell,
            replicate=replicate,
            started=started,
            wall_seconds=round(time.monotonic() - began, 3),
            phases=bench.phases,
            inputs=str(bench.workloads["baseline"].inputs) if cell.pair.inputs else "",
            **fields,
        )

    def result(role: str, **found: Any) -> ModelResult:
        seen = {"implementations": bench.ran[role], "not_compiled": dict(bench.not_compiled.get(role, {}))}
        return getattr(facts, role).model_copy(update={**seen, **found})

    bench.first_calls()
    try:
        check = bench.check()
    except WrongOutputError as error:
        return record(status="failed", reason=str(error), **{role: result(role) for role in ROLES})
    bench.warm_up(0.1 * left())
    peaks = bench.peak_memory()
    seconds = left()
    proven = {
        "random": max(facts.random_errors.values(), default=None),
        "photo": max(facts.photo_errors.values(), default=None),
    }
    rounds, state, flags, power = bench.sample(
        seconds=seconds * (1 - SHARE if serving else 1),
        precision=plan.precision,
        on_round=lambda rounds: report("rounds", (len(rounds.baseline), rounds.speedup)),
    )
    calls = bench.single_calls(seconds - bench.phases["sampling"]) if serving else {}

    def served(role: str) -> Serving:
        # An engine loads what was exported for it, not a file of weights.
        deployed, kept = bench.workloads[role].deployed, weights.get(role, Stored())
        loaded = deployed.record if deployed else kept
        return Serving(
            latencies=_rounded(calls[role]),
            first_call_seconds=bench.first_seconds[role],
            load_seconds=loaded.load_seconds,
            disk_bytes=loaded.disk_bytes,
            problem=kept.problem,
        )

    def timed(role: str) -> ModelResult:
        first, deployed = bench.first_seconds[role], bench.workloads[role].deployed
        compiled = max(0.0, first - bench.pace[role]) if cell.mode in COMPILING else None
        return result(
            role,
            peak_bytes=peaks[role].bytes,
            peak_source=peaks[role].source,
            compile_seconds=compiled,
            compile_cache=bench.compile_cache.get(role),
            watts=power[role].watts if role in power else None,
            joules=power[role].joules if role in power else None,
            serving=served(role) if serving else None,
            deployed=deployed and deployed.record.model_copy(update={"first_call_seconds": first}),
            samples=_rows(getattr(rounds, role)),
            host_samples=_rows(getattr(rounds, f"{role}_host")),
        )

    return record(
        status="ok",
        baseline=timed("baseline"),
        candidate=timed("candidate"),
        speedup=rounds.speedup,
        stop=rounds.stop,
        check=check and check.model_copy(update=proven),
        flags=(*facts.flags, *flags),
        device_state=state,
    )


def compile_beforehand(report: Report, cell: Cell, threads: int) -> None:
    """The first calls of a cell's models, as they come before its timing: compiled code stays on disk."""
    compile_for_others(threads)
    require_compiler(cell)
    Bench.of(cell).first_calls()


def attempt(report: Report, cell: Cell, role: str, limit_bytes: int | None) -> int | None:
    """One pass of one of a cell's models at the cell's batch size; its peak memory in bytes, if known.

    On a CPU the process may hold `limit_bytes` and no more, so that what does not fit fails here
    instead of driving the machine into swap.
    """
    if limit_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    device = torch.device(cell.device)
    model = build_model(getattr(cell.pair, role), cell, device)
    workload = make_workload(model, cell_inputs(cell, device), cell)
    workload.run()
    return peak_memory(workload, cell.device).bytes


def require_compiler(cell: Cell) -> None:
    """Raise unless torch.compile finds what it needs."""
    reason = unmet(cell, no_cpp=missing_compiler() if needs_cpp(cell) else None)
    if reason is not None:
        raise RuntimeError(reason)


def _rows(samples: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(_rounded, samples))


def _rounded(samples: list[float]) -> tuple[float, ...]:
    """To a hundredth of a nanosecond, or to nine digits: what a file needs to hold."""
    return tuple(float(f"{value:.9g}") for value in samples)
