"""Speed-up by engine: what executes a pair decides how much of its promise becomes time."""

from typing import TYPE_CHECKING, get_args

from flopbench.modes import ENGINES, EngineName, TorchMode
from flopbench.report import text
from flopbench.report.cells import Row, Rows, about, by, is_stock
from flopbench.report.engines import engine_name
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    INK,
    MUTED,
    caution,
    label_grid,
    look,
    name_of,
    panels,
    told,
    whiskers,
    wrapped,
)
from flopbench.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MODES = (*get_args(TorchMode), *get_args(EngineName))
# A series per kind of kernels that was asked for.
_SERIES = {
    "auto": "as usual: in the engine's idiom; in torch with the fastest kernels known",
    "eager": "exported naively; with torch's own operations",
}
Places = dict[tuple[str, str, str], int]
"""The height of each row: by pair, mode and dtype."""


def speedup_by_engine(run: Run, cells: Rows, suffix: str) -> Drawing | None:
    """Speed-up of each pair in each mode, a panel per batch size; where an engine is among several modes."""
    shown = [row for row in cells if row["pass"] == "forward" and not is_stock(row)]
    modes = {row["mode"] for row in shown}
    if len(modes) < 2 or not modes & ENGINES:
        return None
    places, names = _rows_of(shown)
    batches = sorted({row["batch_size"] for row in shown})
    kinds = [kind for kind in dict.fromkeys((*_SERIES, *(row["impl"] for row in shown))) if _of(shown, kind)]
    height = 0.5 + (0.2 if len(kinds) == 1 else 0.29) * len(names)
    figure, axes = panels(len(batches), columns=2, size=(4.2, height), sharex=True)
    for axis, batch in zip(axes, batches, strict=True):
        axis.set_title(f"batch {batch}")
        own = [row for row in shown if row["batch_size"] == batch]
        axis.axvline(1, color=MUTED, linewidth=0.9)
        for number, kind in enumerate(kinds):
            _draw(axis, _of(own, kind), number, (number - (len(kinds) - 1) / 2) * 0.44, places)
        for group in by(own, "network").values():
            _promise(axis, group, places)
        _name_rows(axis, names)
    # The shares stand at the right of the marks.
    low, high = axes[0].get_xlim()
    axes[0].set_xlim(low, high + 0.14 * (high - low))
    label_grid(axes, "", "speed-up")
    handles, labels = axes[0].get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))
    figure.legend([*legend.values()], [wrapped(label) for label in legend], loc="outside upper left")
    return Drawing(
        f"engines{suffix}",
        f"Speed-up by engine, {text.printable(run.info.environment.device_name)}",
        "Forward pass; whiskers are 95 % intervals, the dashed line is what the MACs promise, beside each "
        f"mark stands the realised share; below 1 the candidate is slower.{caution(shown)}",
        "Speed-up of each pair in each engine. " + told(map(_told, shown)),
        figure,
    )


def _of(rows: Rows, kind: str) -> list[Row]:
    return [row for row in rows if row["impl"] == kind]


def _rows_of(shown: Rows) -> tuple[Places, list[str]]:
    """The place of each row, from the top, and their names; a pair's own comes before those of its modes."""
    several = len({row["dtype"] for row in shown}) > 1
    places: Places = {}
    names: list[str] = []
    for group in by(shown, "pair_label").values():
        names.append(group[0]["pair_label"])
        ordered = sorted(group, key=lambda row: _MODES.index(row["mode"]))
        for mode, dtype in dict.fromkeys((row["mode"], row["dtype"]) for row in ordered):
            places[group[0]["pair_label"], mode, dtype] = len(names)
            names.append(f"\0{engine_name(mode)}{f', {dtype}' if several else ''}")
    return places, names


def _place(row: Row, places: Places) -> int:
    return places[row["pair_label"], row["mode"], row["dtype"]]


def _draw(axis: "Axes", rows: Rows, number: int, offset: float, places: Places) -> None:
    """One series, with the realised share beside each mark."""
    from matplotlib.patheffects import withStroke

    heights = [_place(row, places) + offset for row in rows]
    kind = rows[0]["impl"] if rows else ""
    axis.errorbar(
        [row["speedup"] for row in rows],
        heights,
        xerr=whiskers(rows),
        fmt=look(number).marker,
        color=look(number).color,
        markersize=4.5,
        elinewidth=1.2,
        label=_SERIES.get(kind, f"{kind} kernels"),
    )
    for row, height in zip(rows, heights, strict=True):
        if row["realised_share"] is not None:
            axis.annotate(
                about(row, text.percent(row["realised_share"])),
                (row["speedup_high"], height),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=look(number).color,
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )


def _promise(axis: "Axes", group: Rows, places: Places) -> None:
    """What the MACs promise, across all of a pair's rows."""
    heights = [_place(row, places) for row in group]
    ratio = group[0]["macs_ratio"]
    if ratio is not None:
        axis.plot(
            [ratio, ratio],
            [min(heights) - 0.5, max(heights) + 0.5],
            color=INK,
            linestyle=(0, (3, 2)),
            linewidth=1.2,
            label="MACs ratio",
        )


def _name_rows(axis: "Axes", names: list[str]) -> None:
    labels = [name[1:] if name.startswith("\0") else name_of(name, 16) for name in names]
    axis.set_yticks(range(len(names)), labels)
    for label, name in zip(axis.get_yticklabels(), names, strict=True):
        label.set_fontweight("normal" if name.startswith("\0") else "bold")
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)


def _told(row: Row) -> str:
    asked = "" if row["impl"] == "auto" else f", {row['impl']} kernels"
    where = f"batch {row['batch_size']}, {engine_name(row['mode'])}, {row['dtype']}{asked}"
    return f"{row['pair_label']}, {where}: {text.times(row['speedup'])}"
