"""How much faster the candidates are, against how much work their baselines are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flopbench.report import text
from flopbench.report.cells import Row, Rows, by, headline, items_of, setting_words
from flopbench.report.paper import PROTOCOL, family_of, published, size_of, version_of
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    MUTED,
    PUBLISHED,
    VERSION_LOOKS,
    Label,
    Look,
    caution,
    label_grid,
    log_axis,
    look,
    panels,
    place_labels,
    told,
    whiskers,
    wrapped,
)
from flopbench.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The batch size of the published throughputs: what stands beside them is taken as near to it as there is.
PAPER_BATCH = 64


def nearest_to_paper(cells: Rows) -> list[Row]:
    """Of each pair the forward cell whose batch size is nearest to the paper's."""
    forward = [row for row in cells if row["pass"] == "forward"]
    return [
        min(group, key=lambda row: abs(row["batch_size"] / PAPER_BATCH - 1))
        for group in by(forward, "network").values()
    ]


def panel_title(run: Run, cells: Rows) -> str:
    """Device and setting of a run's panel."""
    chosen = headline(cells)
    words = f"({setting_words(chosen)})" if chosen else ""
    return wrapped(f"{text.printable(run.info.environment.device_name)}\n{words}")


def gain_against_macs(runs: Sequence[Run], cells: Rows) -> Drawing | None:
    """Throughput gain of the forward pass against MACs, a panel a family and run."""
    shown: list[tuple[str, list[Row]]] = []
    for run in runs:
        own = [row for row in cells if row["run"] == run.info.id]
        nearest = [row for row in nearest_to_paper(headline(own)) if row["baseline_macs"]]
        families = by([{**row, "family": family_of(row["baseline_label"])} for row in nearest], "family")
        for family, points in families.items():
            heading = f"{family or 'other networks'}, " if len(families) > 1 else ""
            shown.append((heading + panel_title(run, own), points))
    if not shown:
        return None
    unit, power = _unit([row for _, points in shown for row in points])
    figure, axes = panels(len(shown), columns=3, size=(4.2, 3.5), sharey=True)
    for axis, (title, points) in zip(axes, shown, strict=True):
        axis.set_title(title)
        _draw(axis, points, unit)
    item = items_of([row for _, points in shown for row in points]).removesuffix("s")
    label_grid(axes, "throughput gain (%)", f"MACs of the baseline, one {item} ({power})")
    for axis, (_, points) in zip(axes, shown, strict=True):
        _label(axis, points, unit)
    batches = sorted({row["batch_size"] for _, points in shown for row in points})
    return Drawing(
        "gain-against-macs",
        "Throughput gain against MACs",
        f"Forward pass at batch {text.joined([str(b) for b in batches], 'or')}; bars are 95 % intervals."
        + f" Grey, hollow: {PROTOCOL}." * any(_published(points) for _, points in shown)
        + caution([row for _, points in shown for row in points]),
        "Throughput gain against the baseline's MACs. "
        + told(
            f"{row['candidate_label']}: {text.change(row['speedup'] - 1, 0)} over a baseline of "
            f"{text.count(row['baseline_macs'])} MACs"
            for _, points in shown
            for row in points
        ),
        figure,
    )


def _unit(points: Rows) -> tuple[float, str]:
    """The unit in which their MACs are short numbers: that of the published, or a smaller one."""
    units = ((1e9, "10⁹"), (1e6, "10⁶"), (1e3, "10³"))
    most = max(row["baseline_macs"] for row in points)
    if any(family_of(row["baseline_label"]) for row in points):
        return units[0]
    return next((unit for unit in units if most >= 0.1 * unit[0]), units[-1])


def _draw(axis: "Axes", points: Rows, unit: float) -> None:
    behind = _published(points)
    axis.plot(
        [x for x, _, _ in behind],
        [y for _, y, _ in behind],
        color=PUBLISHED,
        linestyle=(0, (2, 2)),
        linewidth=1.2,
        marker="o",
        markerfacecolor="white",
    )
    looks = _looks(points)
    for name, group in _series(points).items():
        axis.errorbar(
            [row["baseline_macs"] / unit for row in group],
            [_gain(row["speedup"]) for row in group],
            yerr=whiskers(group, _gain),
            **looks[name].line,
        )
    axis.axhline(0, color=MUTED, linewidth=0.9)
    reach = [*(row["baseline_macs"] / unit for row in points), *(x for x, _, _ in behind)]
    axis.set_xscale("log")
    axis.set_xlim(min(reach) / 1.5, max(reach) * 2.6)
    log_axis(axis.xaxis, min(reach), max(reach))
    axis.margins(y=0.12)


def _published(points: Rows) -> list[tuple[float, float, str]]:
    """(MACs of the baseline in 10⁹, gain in per cent, label) of the published pairs of the points' family."""
    family = family_of(points[0]["baseline_label"])
    line = [p for p in published() if p.family == family and p.gain_percent is not None]
    return [
        (p.baseline_gflops or 0, p.gain_percent or 0, f"E({family}), published" if p is line[-1] else p.size)
        for p in line
    ]


def _label(axis: "Axes", points: Rows, unit: float) -> None:
    labels = [Label(x, y, words, MUTED) for x, y, words in _published(points)]
    looks = _looks(points)
    for name, group in _series(points).items():
        for row in group:
            last = row is group[-1]
            size = size_of(row["candidate_label"])
            words = f"{name} {size}".strip() if last else size
            labels.append(
                Label(row["baseline_macs"] / unit, _gain(row["speedup"]), words, looks[name].color, bold=last)
            )
    place_labels(axis, labels)


def _series(points: Rows) -> dict[str, list[Row]]:
    """The sizes of a family and version, joined by a line; a network that is not the paper's is alone."""
    series: dict[str, list[Row]] = {}
    for row in points:
        label = text.shortened(text.printable(row["candidate_label"]))
        family = family_of(row["baseline_label"])
        name = f"{version_of(label)}({family})" if family and family_of(label) else label
        series.setdefault(name, []).append(row)
    return {name: sorted(group, key=lambda row: row["baseline_macs"]) for name, group in series.items()}


def _looks(points: Rows) -> dict[str, Look]:
    """A look a series: that of its version; of networks that are not the paper's, by number."""
    series = _series(points)
    if family_of(points[0]["baseline_label"]):
        return {
            name: VERSION_LOOKS[version_of(group[0]["candidate_label"])] for name, group in series.items()
        }
    return {name: look(number) for number, name in enumerate(series)}


def _gain(speedup: float) -> float:
    return (speedup - 1) * 100
