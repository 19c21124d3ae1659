"""How long single calls take: not one figure, but how these are distributed."""

from collections.abc import Sequence
from typing import Any

from flopbench.report import text
from flopbench.report.cells import Row, Rows, by, headline, setting_words
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    MUTED,
    columns,
    label_grid,
    log_axis,
    look,
    name_of,
    panels,
    told,
)
from flopbench.results import Run
from flopbench.results.percentiles import PERCENTILES

_ROLES = ("baseline", "candidate")


def latencies(run: Run, cells: Rows, suffix: str) -> Drawing | None:
    """Which share of calls took no longer than how long, a panel per pair, at its smallest batch size."""
    chosen = headline([row for row in cells if row["candidate_latency_calls"]])
    if not chosen:
        return None
    shown = [min(group, key=lambda row: row["batch_size"]) for group in by(chosen, "network").values()]
    samples = _samples(run, shown)
    figure, axes = panels(len(shown), sharey=True, size=(3.1, 2.5))
    for axis, row in zip(axes, shown, strict=True):
        axis.set_title(f"{name_of(row['pair_label'])}\nbatch {row['batch_size']}")
        both = samples[row["cell"]]
        for number, role in enumerate(_ROLES):
            own = look(number)
            milliseconds = [1e3 * seconds for seconds in both[role]]
            axis.ecdf(milliseconds, color=own.color, linestyle=own.dashes, label=role)
        for percentile in PERCENTILES:
            axis.axhline(percentile / 100, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        axis.set_yticks([0, *(percentile / 100 for percentile in PERCENTILES)], ["0", "p50", "p90", "p99"])
        axis.set_ylim(0, 1.03)
        axis.set_xscale("log")
        log_axis(axis.xaxis, 1e3 * min(map(min, both.values())), 1e3 * max(map(max, both.values())))
    label_grid(axes, "share of calls", "latency at most (ms)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=columns(2))
    return Drawing(
        f"latency{suffix}",
        f"Latency of single calls, {text.printable(run.info.environment.device_name)}",
        f"Which share of calls took no longer, each waited for before the next ({setting_words(chosen)}).",
        "Distribution of the latencies of baseline and candidate of each pair. "
        + told(_figures(row, role) for row in shown for role in _ROLES),
        figure,
    )


def _samples(run: Run, cells: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Latencies by cell and role, of all replicates."""
    found: dict[str, dict[str, list[float]]] = {row["cell"]: {role: [] for role in _ROLES} for row in cells}
    for record in run.records():
        for role in _ROLES:
            model: Any = getattr(record, role)
            if record.cell.id in found and model and model.serving:
                found[record.cell.id][role] += model.serving.latencies
    return found


def _figures(row: Row, role: str) -> str:
    known = [
        f"p{percentile} {text.seconds(row[f'{role}_latency_p{percentile}'])}"
        for percentile in PERCENTILES
        if row[f"{role}_latency_p{percentile}"] is not None
    ]
    return f"{row[f'{role}_label']}: {text.joined(known) or 'too few calls'}"
