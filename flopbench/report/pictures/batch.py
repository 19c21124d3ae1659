"""What the batch size does: to the speed-up, and to memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flopbench.report import text
from flopbench.report.cells import (
    Row,
    Rows,
    about,
    by,
    by_setting,
    flag_kinds,
    headline,
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
    caution,
    label_grid,
    log_axis,
    look,
    name_of,
    panels,
    told,
    whiskers,
    wrapped,
)
from flopbench.results import FrontierRecord, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flopbench.report.pictures.figure import Figure


def speedup_against_batch(run: Run, cells: Rows, suffix: str) -> Drawing | None:
    """Speed-up against batch size, a panel a pair, with the MACs ratio and 1."""
    batches = sorted({row["batch_size"] for row in cells})
    if len(batches) < 2:
        return None
    looks = {words: (setting_of(own[0]), look(n)) for n, (words, own) in enumerate(by_setting(cells).items())}
    pairs = by(cells, "network")
    figure, axes = _panels(pairs, "speed-up")
    for axis, group in zip(axes, pairs.values(), strict=True):
        for pass_, of_pass in PASS_LOOKS.items():
            for setting, own in looks.values():
                line = [row for row in in_setting(group, setting) if row["pass"] == pass_]
                if line:
                    _draw_speedups(axis, line, replace(own, dashes=of_pass.dashes))
        _reference_lines(axis, group[0])
        batch_axis(axis, batches)
    reach = [
        1.0,
        *(row[key] for row in cells for key in ("speedup_low", "speedup_high", "macs_ratio") if row[key]),
    ]
    room = 0.09 * (max(reach) - min(reach))
    axes[0].set_ylim(min(reach) - room, max(reach) + 1.8 * room)
    _legend(figure, {words: own for words, (_, own) in looks.items()}, cells, {})
    return Drawing(
        f"speedup-against-batch{suffix}",
        f"Speed-up against batch size, {text.printable(run.info.environment.device_name)}",
        "Bars are 95 % intervals. The dashed line is what the MACs promise; below 1 the candidate is slower."
        + " Hollow markers are launch-bound." * any(map(_launch_bound, cells))
        + caution(cells),
        "Speed-up of each pair against the batch size, beside its MACs ratio. " + _told(cells),
        figure,
    )


def _at_largest(cells: Rows) -> list[Row]:
    """Of each network, pass and setting the cell at the largest batch."""
    groups: dict[Any, Row] = {}
    for row in sorted(cells, key=lambda row: row["batch_size"]):
        groups[row["network"], row["pass"], setting_of(row)] = row
    return list(groups.values())


def _told(cells: Rows) -> str:
    """The figures at the largest batch, by setting."""
    return told(
        f"{words}, {row['pair_label']}, {row['pass']}, batch {row['batch_size']}: "
        + text.times(row["speedup"])
        for words, own in by_setting(cells).items()
        for row in _at_largest(own)
    )


def _panels(pairs: Mapping[Any, Rows], what: str) -> tuple["Figure", list["Axes"]]:
    """A panel a pair, titled, with `what` on the vertical axis."""
    figure, axes = panels(len(pairs), sharey=True, size=(3.1, 2.5))
    for axis, group in zip(axes, pairs.values(), strict=True):
        axis.set_title(name_of(group[0]["pair_label"]))
    label_grid(axes, what, "batch size")
    return figure, axes


def _launch_bound(row: Row) -> bool:
    return "launch-bound" in flag_kinds(row)


def _draw_speedups(axis: "Axes", cells: Rows, own: Look) -> None:
    line = sorted(cells, key=lambda row: row["batch_size"])
    points = [row["batch_size"] for row in line], [row["speedup"] for row in line]
    axis.errorbar(*points, yerr=whiskers(line), color=own.color, linestyle=own.dashes)
    for bound in (True, False):
        marked = [row for row in line if _launch_bound(row) is bound]
        axis.plot(
            [row["batch_size"] for row in marked],
            [row["speedup"] for row in marked],
            color=own.color,
            marker=own.marker,
            markerfacecolor="white" if bound else own.color,
            linestyle="none",
        )


def _reference_lines(axis: "Axes", row: Row) -> None:
    axis.axhline(1, color=MUTED, linewidth=0.9)
    if row["macs_ratio"] is None:
        return
    axis.axhline(row["macs_ratio"], color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axis.annotate(
        f"MACs ratio {about(row, text.factor(row['macs_ratio']))}",
        (0.02, row["macs_ratio"]),
        xycoords=("axes fraction", "data"),
        # Away from the speed-up of 1.
        xytext=(0, 3 if row["macs_ratio"] >= 1 else -3),
        va="baseline" if row["macs_ratio"] >= 1 else "top",
        textcoords="offset points",
        fontsize=8,
    )


def _legend(
    figure: "Figure", colors: Mapping[str, Look], cells: Rows, marks: Mapping[str, Look] | None = None
) -> None:
    """What colours and markers mean, which dashes are which pass, and what further marks stand for."""
    from matplotlib.lines import Line2D

    passes = [pass_ for pass_ in PASS_LOOKS if any(row["pass"] == pass_ for row in cells)]
    entries = {name: replace(own, dashes="none") for name, own in colors.items()}
    entries |= {pass_: Look(MUTED, "", PASS_LOOKS[pass_].dashes) for pass_ in passes} | {**(marks or {})}
    handles = [Line2D([], [], label=wrapped(name), **own.line) for name, own in entries.items()]
    # Inches of a column: the names of settings can be long.
    column = max(1.2, 0.6 + 0.08 * max(map(len, entries)))
    columns = max(1, min(len(handles), int(figure.get_figwidth() / column)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)


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
    chosen = headline(ok)
    if not chosen:
        return None
    setting = setting_of(chosen[0])
    lost = [row for row in in_setting(rows, setting) if row["status"] == "oom"]
    frontiers = [
        frontier
        for frontier in run.frontiers()
        if frontier.peak_bytes and (frontier.cell.dtype, frontier.cell.mode) == setting[:2]
    ]
    pairs = by(chosen, "network")
    unit, name = _unit(max(row[f"{role}_peak_bytes"] for row in chosen for role in ("baseline", "candidate")))
    figure, axes = _panels(pairs, f"peak memory ({name})")
    batches = sorted({row["batch_size"] for row in [*chosen, *lost]})
    reach = [*batches, *(frontier.largest_batch for frontier in frontiers)]
    total = run.info.environment.device_memory_bytes
    sizes: list[float] = [
        row[f"{role}_peak_bytes"] / unit for row in chosen for role in ("baseline", "candidate")
    ]
    top: float = max(sizes) if not (total and lost) else max(*sizes, total / unit)
    roles = {"baseline": look(0), "candidate": look(1)}
    for axis, (pair, group) in zip(axes, pairs.items(), strict=True):
        for pass_, line in by(sorted(group, key=lambda row: row["batch_size"]), "pass").items():
            for role, own in roles.items():
                axis.plot(
                    [row["batch_size"] for row in line],
                    [row[f"{role}_peak_bytes"] / unit for row in line],
                    **replace(own, dashes=PASS_LOOKS[pass_].dashes).line,
                )
                _mark_frontier(axis, group[0][f"{role}_label"], pass_, frontiers, own, unit)
        axis.set_yscale("log")
        _mark_lost(axis, [row for row in lost if row["network"] == pair], total and total / unit, top)
        batch_axis(axis, batches, reach)
        log_axis(axis.yaxis, min(sizes), top)
    axes[0].set_ylim(min(sizes) / 1.5, top * 2.2)
    marks = {"largest batch that fits": Look(MUTED, "*", "none")} if frontiers else {}
    if lost:
        marks["out of memory"] = Look(INK, "x", "none")
    _legend(figure, roles, chosen, marks)
    return Drawing(
        f"memory-against-batch{suffix}",
        f"Memory against batch size, {text.printable(run.info.environment.device_name)}",
        f"Weights, gradients and activations at the pass's peak ({setting_words(chosen)}).",
        "Peak memory of baseline and candidate of each pair against the batch size. "
        + told(
            f"{row['pair_label']}, {row['pass']}, batch {row['batch_size']}: "
            f"{text.size(row['baseline_peak_bytes'])} and {text.size(row['candidate_peak_bytes'])}"
            for row in _at_largest(chosen)
        ),
        figure,
    )


def _unit(top: float) -> tuple[int, str]:
    """The unit in which sizes up to `top` bytes are short numbers."""
    units = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
    return next((unit for unit in units if top >= 0.1 * unit[0]), units[-1])


def _mark_frontier(
    axis: "Axes", label: str, pass_: str, frontiers: Sequence[FrontierRecord], own: Look, unit: int
) -> None:
    """A star where the memory of a model's pass ends, with the batch size."""
    for frontier in frontiers:
        if (frontier.label, frontier.cell.pass_) != (label, pass_) or not frontier.peak_bytes:
            continue
        point = (frontier.largest_batch, frontier.peak_bytes / unit)
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


def _mark_lost(axis: "Axes", lost: Rows, total: float | None, top: float) -> None:
    """The device's memory, and a cross at each batch size that did not fit."""
    if total and lost:
        axis.axhline(total, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    for row in lost:
        axis.plot(
            row["batch_size"],
            total or top,
            color=INK,
            marker="x",
            markersize=8,
            markeredgewidth=2,
            linestyle="none",
        )
