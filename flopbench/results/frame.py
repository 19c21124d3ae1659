"""Runs as a DataFrame."""

from collections.abc import Iterable
from itertools import chain
from statistics import median
from typing import TYPE_CHECKING, Any

from flopbench.cells import AXES
from flopbench.models.catalog import GIVEN
from flopbench.results.percentiles import PERCENTILES
from flopbench.results.records import UNRESOLVED, CellRecord, Deployment, ModelResult, Serving
from flopbench.results.run import Run

if TYPE_CHECKING:
    import pandas as pd

IMAGES = "images"
"""The `inputs` of networks that are called with one tensor of images."""


def to_frame(runs: Iterable[Run]) -> "pd.DataFrame":
    """One row a cell, replicate and run.

    Columns: what the cell is (`run`, `device_name`, `pair`, `cell`, one per axis), `inputs` (what the
    networks were called with: "images", or inputs of their own), then `status`, `reason`, for `baseline_`
    and `candidate_` each `label`, `parameters`, `macs`, `uncounted` (the operators that were left out of
    these, and how often each came), `seconds` (median per call), `throughput` (images a second, or
    samples of inputs of their own), `watts`, `joules` (per call) and `images_per_joule` (images/s/W,
    samples/s/W) where the device tells, `peak_bytes`, `peak_source` (how that was found),
    `compile_seconds`, `compile_cache` (whether it held what was compiled), `kernels` (what ran),
    `not_compiled` (what of a compiled model runs uncompiled, and how often), `agreement` (its largest
    deviation from torch's eager operations, relative to the output's root mean square), and
    where serving figures were asked for `latency_p50`, `latency_p90` and `latency_p99` (seconds; each
    with `_low` and `_high`, the ends of its 95 % interval; None of too few calls), `latency_calls` and
    `load_problem` (why it could not be loaded); where they were, or an engine executed the model,
    `first_call_seconds`, `load_seconds` and `disk_bytes`, and of an engine `export_seconds`; then `engine`,
    `engine_version`, `provider` (what within the engine computes), `engine_threads`,
    `speedup`, `speedup_low`, `speedup_high`, `macs_ratio`, `realised_share`, `invariance_error` (of int8 that
    before quantising), `invariance_in_cell` (in the cell's own dtype and mode), `difference` (of what the
    pair says is the same, relative to its root mean square), `stop`,
    `compiled_beforehand` (in how many processes side by side, 0 if not), `rounds`, `flags`. A cell whose
    samples answer nothing has the status `not resolved`, its figures, and no realised share.
    """
    import pandas as pd

    rows = [_row(run, record) for run in runs for record in run.records()]
    frame = pd.DataFrame(rows)
    # Left to itself pandas makes floats of whole numbers of which some are None.
    optional = [axis.name for axis in AXES.values() if axis.usual is None]
    return frame.assign(**{name: pd.Series([row[name] for row in rows], dtype=object) for name in optional})


def _served(serving: Serving | None) -> dict[str, float | None]:
    """The serving figures of a model, all of them None where they were not asked for."""
    figures: dict[str, float | None] = {}
    for percentile in PERCENTILES:
        latency = serving.latency(percentile) if serving else None
        figures |= {
            f"latency_p{percentile}": latency.estimate if latency else None,
            f"latency_p{percentile}_low": latency.low if latency else None,
            f"latency_p{percentile}_high": latency.high if latency else None,
        }
    return figures | {
        "latency_calls": len(serving.latencies) if serving else None,
        "load_problem": serving.problem or None if serving else None,
    }


def _started(result: ModelResult | None) -> dict[str, float | None]:
    """How long a model took from what is stored to its first call, and how much is stored."""
    deployed = result and result.deployed
    from_ = deployed or (result and result.serving)
    return {
        "export_seconds": deployed.export_seconds if deployed else None,
        **{
            name: getattr(from_, name) if from_ else None
            for name in ("load_seconds", "disk_bytes", "first_call_seconds")
        },
    }


def _engine(deployed: Deployment | None) -> dict[str, str | int | None]:
    """What executed both models, if that was not torch."""
    return {
        "engine": deployed.engine if deployed else None,
        "engine_version": deployed.version if deployed else None,
        "provider": deployed.provider if deployed else None,
        "engine_threads": deployed.threads if deployed else None,
    }


def _inputs(record: CellRecord) -> str:
    """What was seen, else the name of what makes it; what was given from Python has none."""
    name = record.cell.pair.inputs
    if name is None:
        return IMAGES
    return record.inputs or ("given from Python" if name.startswith(f"{GIVEN}:") else name)


def _row(run: Run, record: CellRecord) -> dict[str, Any]:
    cell = record.cell
    row: dict[str, Any] = {
        "run": run.info.id,
        "device": cell.device,
        "device_name": run.info.environment.device_name,
        "pair": cell.pair.id,
        "cell": cell.id,
        "replicate": record.replicate,
        **{axis.name: axis.of(cell) for axis in AXES.values()},
        "inputs": _inputs(record),
        "world": record.world,
        "status": UNRESOLVED if record.unresolved else record.status,
        "reason": record.unresolved or record.reason,
    }
    labels = dict(zip(("baseline", "candidate"), cell.labels, strict=True))
    for role, label in labels.items():
        result: ModelResult | None = getattr(record, role)
        seconds = median(chain(*result.samples)) if result and any(result.samples) else None
        row |= {
            f"{role}_label": label,
            f"{role}_parameters": result.parameters if result else None,
            f"{role}_macs": result.macs if result else None,
            f"{role}_uncounted": result.uncounted if result else "",
            f"{role}_seconds": seconds,
            f"{role}_throughput": cell.batch_size / seconds if seconds else None,
            f"{role}_watts": result.watts if result else None,
            f"{role}_joules": result.joules if result else None,
            f"{role}_images_per_joule": cell.batch_size / result.joules if result and result.joules else None,
            f"{role}_peak_bytes": result.peak_bytes if result else None,
            f"{role}_peak_source": result.peak_source if result else None,
            f"{role}_compile_seconds": result.compile_seconds if result else None,
            f"{role}_compile_cache": result.compile_cache if result else None,
            f"{role}_kernels": result.kernels if result else None,
            f"{role}_not_compiled": "; ".join(
                f"{what} ({times})" for what, times in result.not_compiled.items()
            )
            if result
            else "",
            f"{role}_agreement": record.check.agreements.get(role) if record.check else None,
            **{f"{role}_{name}": value for name, value in _served(result and result.serving).items()},
            **{f"{role}_{name}": value for name, value in _started(result).items()},
        }
    speedup, check = record.speedup, record.check
    in_cell = check and check.in_cell
    # What int8 costs is a figure of its own: beside it no error of the network's would be seen.
    found = [check.random, check.photo, None if cell.dtype == "int8" else in_cell] if check else []
    errors = [error for error in found if error is not None]
    return row | {
        **_engine(record.candidate and record.candidate.deployed),
        "speedup": speedup.estimate if speedup else None,
        "speedup_low": speedup.low if speedup else None,
        "speedup_high": speedup.high if speedup else None,
        "macs_ratio": record.macs_ratio,
        "realised_share": record.realised_share,
        "invariance_error": max(errors) if errors else None,
        "invariance_in_cell": in_cell,
        "difference": check.same if check else None,
        "stop": record.stop,
        "compiled_beforehand": record.compiled_beforehand,
        "rounds": len(record.candidate.samples) if record.candidate else 0,
        "flags": ", ".join(dict.fromkeys(flag.kind for flag in record.flags)),
    }
