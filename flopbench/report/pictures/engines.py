"""Speed-up by engine: what executes a pair decides how much of its promise becomes time."""

from typing import get_args

from flopbench.cells import ENGINES, EngineName, TorchMode
from flopbench.report import text
from flopbench.report.cells import Row, Rows, about, by, is_stock
from flopbench.report.engines import engine_name
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    INK,
    MUTED,
    caution,
    columns,
    label_grid,
    look,
    name_of,
    panels,
    promise,
    told,
    whiskers,
    wrapped,
)
from flopbench.results import Run

_MODES = (*get_args(TorchMode), *get_args(EngineName))
# By the kernels that were asked for: as usual, as torch has it, and whatever else.
_SERIES = {
    "auto": "as usual: exported in the engine's idiom, or flopbench's kernels in torch",
    "eager": "exported naively, or torch's own operations",
}


def speedup_by_engine(run: Run, cells: Rows, suffix: str) -> Drawing | None:
    """Speed-up of each pair in each mode, a panel per batch size; with an engine and another mode alone."""
    shown = [row for row in cells if row["pass"] == "forward" and not is_stock(row)]
    modes = {row["mode"] for row in shown}
    if len(modes) < 2 or not modes & ENGINES:
        return None
    dtypes = list(dict.fromkeys(row["dtype"] for row in shown))
    places = _places(shown, dtypes)
    batches = sorted({row["batch_size"] for row in shown})
    figure, axes = panels(len(batches), columns=2, size=(4.1, 0.7 + 0.215 * len(places)), sharex=True)
    kinds = [kind for kind in dict.fromkeys((*_SERIES, *(row["impl"] for row in shown))) if kind]
    for axis, batch in zip(axes, batches, strict=True):
        axis.set_title(f"batch {batch}")
        own = [row for row in shown if row["batch_size"] == batch]
        axis.axvline(1, color=MUTED, linewidth=0.9)
        for number, kind in enumerate(kinds):
            series = [row for row in own if row["impl"] == kind]
            axis.errorbar(
                [row["speedup"] for row in series],
                [places[_place(row)] + _offset(row, own) for row in series],
                xerr=whiskers(series),
                fmt=look(number).marker,
                color=look(number).color,
                markersize=4.5,
                elinewidth=1.2,
            )
            for row in series:
                _tell_share(axis, row, places[_place(row)] + _offset(row, own))
        for group in by(own, "network").values():
            if (ratio := group[0]["macs_ratio"]) is not None:
                heights = [places[_place(row)] for row in group]
                middle, half = (min(heights) + max(heights)) / 2, (max(heights) - min(heights)) / 2
                _promised(axis, ratio, middle, half)
        _name_rows(axis, places, dtypes)
        low, high = axis.get_xlim()
        axis.set_xlim(low, high + 0.16 * (high - low))
    label_grid(axes, "", "speed-up")
    figure.legend(*_legend(shown, kinds), loc="outside upper left", ncols=columns(1))
    return Drawing(
        f"engines{suffix}",
        f"Speed-up by engine, {text.printable(run.info.environment.device_name)}",
        "Forward pass; whiskers are 95 % intervals, the dashed line is what the MACs promise, the figure "
        f"beside a mark the realised share; below 1 the candidate is slower.{caution(shown)}",
        "Speed-up of each pair in each engine. "
        + told(
            f"{row['pair_label']}, batch {row['batch_size']}, {engine_name(row['mode'])}, {row['dtype']}"
            f"{'' if row['impl'] == 'auto' else ', ' + row['impl']}: {text.times(row['speedup'])}"
            for row in shown
        ),
        figure,
    )
