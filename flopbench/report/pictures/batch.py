"""What the batch size does: to the speed-up, and to memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flopbench.report import text
from flopbench.report.cells import (
    Row,
    Rows,
    by,
    flag_kinds,
    headline_setting,
    in_setting,
    setting_of,
    setting_words,
)
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    INK,
    MUTED,
    PASS_LOOKS,
    Look,
    batch_axis,
    log_axis,
    look,
    panels,
)
from flopbench.results import FrontierRecord, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def speedup_against_batch(run: Run, cells: Rows, suffix: str) -> Drawing | None:
    """Speed-up against batch size, a panel a pair, with the MACs ratio and 1."""
    if not cells:
        return None
    settings = list(dict.fromkeys(map(setting_of, cells)))
    pairs = by(cells, "network")
    figure, axes = panels(len(pairs), sharey=True, size=(3.1, 2.5))
    batches = sorted({row["batch_size"] for row in cells})
    for number, (axis, group) in enumerate(zip(axes, pairs.values(), strict=True)):
        for pass_, looks in PASS_LOOKS.items():
            for index, setting in enumerate(settings):
                line = sorted(
                    (row for row in in_setting(group, setting) if row["pass"] == pass_),
                    key=lambda row: row["batch_size"],
                )
                if line:
                    _draw_speedups(axis, line, look(index).color, look(index).marker, looks.dashes)
        _reference_lines(axis, group[0])
        axis.set_title(text.printable(group[0]["candidate_label"]))
        batch_axis(axis, batches)
        if number % 3 == 0:
            axis.set_ylabel("speed-up")
        if number >= len(axes) - 3:
            axis.set_xlabel("batch size")
    reach = [
        1.0,
        *(row[key] for row in cells for key in ("speedup_low", "speedup_high", "macs_ratio") if row[key]),
    ]
    room = 0.09 * (max(reach) - min(reach))
    axes[0].set_ylim(min(reach) - room, max(reach) + 1.8 * room)
    passes = [pass_ for pass_ in PASS_LOOKS if any(row["pass"] == pass_ for row in cells)]
    _legend(
        figure,
        [
            (setting_words(setting), look(index).color, look(index).marker, "none")
            for index, setting in enumerate(settings)
        ]
        + [(pass_, MUTED, "", PASS_LOOKS[pass_].dashes) for pass_ in passes],
    )
    return Drawing(
        f"speedup-against-batch{suffix}",
        f"Speed-up against batch size, {text.printable(run.info.environment.device_name)}",
        "Bars are 95 % intervals. The dashed line is what the MACs promise; below 1 the candidate is slower."
        + (
            " Hollow markers are launch-bound."
            if any("launch-bound" in flag_kinds(row) for row in cells)
            else ""
        ),
        "Speed-up of each pair against the batch size, beside its MACs ratio.",
        figure,
    )


def _draw_speedups(axis: "Axes", line: Rows, color: str, marker: str, dashes: Any) -> None:
    batches = [row["batch_size"] for row in line]
    speedups = [row["speedup"] for row in line]
    axis.errorbar(
        batches,
        speedups,
        yerr=[
            [row["speedup"] - row["speedup_low"] for row in line],
            [row["speedup_high"] - row["speedup"] for row in line],
        ],
        color=color,
        linestyle=dashes,
    )
    for bound in (True, False):
        own = [row for row in line if ("launch-bound" in flag_kinds(row)) is bound]
        axis.plot(
            [row["batch_size"] for row in own],
            [row["speedup"] for row in own],
            color=color,
            marker=marker,
            markerfacecolor="white" if bound else color,
            linestyle="none",
        )


def _reference_lines(axis: "Axes", row: Row) -> None:
    axis.axhline(1, color=MUTED, linewidth=0.9)
    if row["macs_ratio"] is None:
        return
    axis.axhline(row["macs_ratio"], color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axis.annotate(
        f"MACs ratio {text.factor(row['macs_ratio'])}",
        (0.02, row["macs_ratio"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
    )


def _legend(figure: Any, entries: list[tuple[str, str, str, Any]]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, marker=marker, linestyle=dashes, label=label)
        for label, color, marker, dashes in entries
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=min(len(handles), int(figure.get_figwidth() / 1.5))
    )


def memory_against_batch(run: Run, rows: Rows, suffix: str) -> Drawing | None:
    """Peak memory against batch size, a panel a pair: where it ends, and what runs out of it.

    Args:
        run: the run.
        rows: all its cells, those out of memory included.
        suffix: of the file's name.
    """
    ok = [
        row
        for row in rows
        if row["status"] == "ok" and row["baseline_peak_bytes"] and row["candidate_peak_bytes"]
    ]
    setting = headline_setting(ok)
    if setting is None:
        return None
    chosen = in_setting(ok, setting)
    lost = [row for row in in_setting(rows, setting) if row["status"] == "oom"]
    frontiers = [
        frontier
        for frontier in run.frontiers()
        if frontier.peak_bytes and (frontier.cell.dtype, frontier.cell.mode) == setting[:2]
    ]
    pairs = by(chosen, "network")
    figure, axes = panels(len(pairs), sharey=True, size=(3.1, 2.5))
    batches = sorted({row["batch_size"] for row in [*chosen, *lost]})
    reach = [*batches, *(frontier.largest_batch for frontier in frontiers)]
    total = run.info.environment.device_memory_bytes
    sizes: list[float] = [
        row[f"{role}_peak_bytes"] / 2**30 for row in chosen for role in ("baseline", "candidate")
    ]
    top: float = max(sizes) if not (total and lost) else max(*sizes, total / 2**30)
    roles = {"baseline": look(0), "candidate": look(1)}
    for number, (axis, (pair, group)) in enumerate(zip(axes, pairs.items(), strict=True)):
        for pass_, line in by(sorted(group, key=lambda row: row["batch_size"]), "pass").items():
            for role, own in roles.items():
                axis.plot(
                    [row["batch_size"] for row in line],
                    [row[f"{role}_peak_bytes"] / 2**30 for row in line],
                    color=own.color,
                    marker=own.marker,
                    linestyle=PASS_LOOKS[pass_].dashes,
                )
                _mark_frontier(axis, group[0][f"{role}_label"], pass_, frontiers, own)
        axis.set_yscale("log")
        _mark_lost(axis, [row for row in lost if row["network"] == pair], total, top)
        axis.set_title(text.printable(group[0]["candidate_label"]))
        batch_axis(axis, batches, reach)
        log_axis(axis.yaxis, min(sizes), top)
        if number % 3 == 0:
            axis.set_ylabel("peak memory (GiB)")
        if number >= len(axes) - 3:
            axis.set_xlabel("batch size")
    axes[0].set_ylim(min(sizes) / 1.5, top * 2.2)
    passes = [pass_ for pass_ in PASS_LOOKS if any(row["pass"] == pass_ for row in chosen)]
    entries: list[tuple[str, str, str, Any]] = [
        (role, own.color, own.marker, "none") for role, own in roles.items()
    ]
    entries += [(pass_, MUTED, "", PASS_LOOKS[pass_].dashes) for pass_ in passes]
    if frontiers:
        entries.append(("largest batch that fits", MUTED, "*", "none"))
    if lost:
        entries.append(("out of memory", INK, "x", "none"))
    _legend(figure, entries)
    return Drawing(
        f"memory-against-batch{suffix}",
        f"Memory against batch size, {text.printable(run.info.environment.device_name)}",
        f"Weights, gradients and activations at the pass's peak ({setting_words(setting)}).",
        "Peak memory of baseline and candidate of each pair against the batch size.",
        figure,
    )


def _mark_frontier(
    axis: "Axes", label: str, pass_: str, frontiers: Sequence[FrontierRecord], own: Look
) -> None:
    """A star where the memory of a model's pass ends, with the batch size."""
    for frontier in frontiers:
        if (frontier.label, frontier.cell.pass_) != (label, pass_) or not frontier.peak_bytes:
            continue
        point = (frontier.largest_batch, frontier.peak_bytes / 2**30)
        axis.plot(*point, color=own.color, marker="*", markersize=9, linestyle="none")
        axis.annotate(
            str(frontier.largest_batch),
            point,
            xytext=(0, 6 if own is look(0) else -12),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=own.color,
        )


def _mark_lost(axis: "Axes", lost: Rows, total: int | None, top: float) -> None:
    """The device's memory, and a cross at each batch size that did not fit."""
    if total and lost:
        axis.axhline(total / 2**30, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    for row in lost:
        axis.plot(
            row["batch_size"],
            total / 2**30 if total else top,
            color=INK,
            marker="x",
            markersize=8,
            markeredgewidth=2,
            linestyle="none",
        )
