"""The speed-ups themselves, where no batch size was varied."""

from flopbench.report import text
from flopbench.report.cells import Rows, by_setting
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    MUTED,
    PASS_LOOKS,
    caution,
    look,
    named_rows,
    new_figure,
    promise,
    told,
    whiskers,
    wrapped,
)
from flopbench.results import Run


def speedups(run: Run, cells: Rows, suffix: str) -> Drawing | None:
    """Speed-up of each pair and pass, a marker per setting, with the MACs ratio and 1."""
    batches = {row["batch_size"] for row in cells}
    if len(batches) != 1:
        return None
    places = [(row["pair_label"], row["pass"]) for row in cells]
    order = sorted(dict.fromkeys(places), key=lambda place: [*PASS_LOOKS].index(place[1]))
    several = len({pass_ for _, pass_ in order}) > 1
    settings = by_setting(cells)
    figure = new_figure(7.2, 1.0 + 0.24 * len(settings) + len(order) * max(0.34, 0.2 * len(settings)))
    axis = figure.subplots()
    for number, (words, own) in enumerate(settings.items()):
        offset = (number - (len(settings) - 1) / 2) * 0.62 / len(settings)
        axis.errorbar(
            [row["speedup"] for row in own],
            [order.index((row["pair_label"], row["pass"])) + offset for row in own],
            xerr=whiskers(own),
            fmt=look(number).marker,
            color=look(number).color,
            label=wrapped(words),
        )
    promised = {
        order.index(place): row["macs_ratio"]
        for place, row in zip(places, cells, strict=True)
        if row["macs_ratio"]
    }
    for index, (height, ratio) in enumerate(promised.items()):
        promise(axis, ratio, height, labelled=not index)
    axis.axvline(1, color=MUTED, linewidth=0.9)
    named_rows(axis, [f"{label}, {pass_}" if several else label for label, pass_ in order])
    axis.set_xlabel("speed-up")
    figure.legend(loc="outside upper left", ncols=1)
    return Drawing(
        f"speedups{suffix}",
        f"Speed-up, {text.printable(run.info.environment.device_name)}",
        f"At batch {batches.pop()}; whiskers are 95 % intervals, the dashed mark is what the MACs promise; "
        f"below 1 the candidate is slower.{caution(cells)}",
        "Speed-up of each pair, with a marker per setting. "
        + told(
            f"{words}, {row['pair_label']}, {row['pass']}: {text.times(row['speedup'])}"
            for words, own in settings.items()
            for row in own
        ),
        figure,
    )
