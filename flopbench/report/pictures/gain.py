"""How much faster the candidates are, against how much work their baselines are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flopbench.cells import AXES
from flopbench.models.tasks import CLASSIFICATION
from flopbench.report import text
from flopbench.report.along import RESOLUTION
from flopbench.report.cells import SEPARATOR, Row, Rows, by, headline, items_of, setting_words, which
from flopbench.report.labels import family_of, read, size_of, version_of
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    MUTED,
    PUBLISHED,
    Label,
    Look,
    caution,
    label_grid,
    log_axis,
    look,
    panels,
    place_labels,
    told,
    version_look,
    whiskers,
    wrapped,
)
from flopbench.report.published import Published, Source, published
from flopbench.results import Run
from flopbench.symmetries.registry import BASELINE, Version

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The batch size of the published throughputs: what stands beside them is taken as near to it as there is.
PAPER_BATCH = 64


def nearest_to_paper(cells: Rows) -> list[Row]:
    """Of each pair the forward cell whose batch size is nearest to the paper's, at the least resolution."""
    forward = [row for row in cells if row["pass"] == "forward"]
    others = [axis.name for axis in AXES.values() if axis.about == "network" and axis.name != RESOLUTION.axis]
    return [
        min(group, key=lambda row: (abs(row["batch_size"] / PAPER_BATCH - 1), RESOLUTION.place(row)))
        for group in by(forward, "pair", *others).values()
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
        + _protocols([network for _, points in shown for network in _published(points)])
        + " Coloured, hollow: over a baseline that has a symmetry itself."
        * any(_over_another(row) for _, points in shown for row in points)
        + caution([row for _, points in shown for row in points]),
        "Throughput gain against the baseline's MACs. "
        + told(
            f"{row['pair_label']}: {text.change(row['speedup'] - 1, 0)} over a baseline of "
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
    for _, line in _lines(behind):
        axis.plot(*zip(*map(_place, line), strict=True), **_BEHIND)
    looks = _looks(points)
    for name, group in _series(points).items():
        hollow: dict[str, Any] = {"markerfacecolor": "white"} if _over_another(group[0]) else {}
        axis.errorbar(
            [row["baseline_macs"] / unit for row in group],
            [_gain(row["speedup"]) for row in group],
            yerr=whiskers(group, _gain),
            **looks[name].line,
            **hollow,
        )
    axis.axhline(0, color=MUTED, linewidth=0.9)
    reach = [*(row["baseline_macs"] / unit for row in points), *(_place(network)[0] for network in behind)]
    axis.set_xscale("log")
    axis.set_xlim(min(reach) / 1.5, max(reach) * 2.6)
    log_axis(axis.xaxis, min(reach), max(reach))
    axis.margins(y=0.12)


_BEHIND: dict[str, Any] = {
    "color": PUBLISHED,
    "linestyle": (0, (2, 2)),
    "linewidth": 1.2,
    "marker": "o",
    "markerfacecolor": "white",
}


def _published(points: Rows) -> list[Published]:
    """The networks of the points' family of which a gain over a baseline is published: they classify."""
    if points[0]["task"] not in (None, CLASSIFICATION.name):
        return []
    family = family_of(points[0]["baseline_label"])
    return [
        network
        for network in published()
        if network.gain_percent is not None and network.baseline and family_of(network.label) == family
    ]


def _lines(networks: Sequence[Published]) -> list[tuple[str, list[Published]]]:
    """The sizes of each version from each source, with the version's label: `E(ViT)`."""
    lines: dict[tuple[Version, Source], list[Published]] = {}
    for network in networks:
        lines.setdefault((version_of(network.label), network.source), []).append(network)
    return [(version.label(family_of(line[0].label) or ""), line) for (version, _), line in lines.items()]


def _place(network: Published) -> tuple[float, float]:
    """MACs of the baseline in 10⁹, gain in per cent."""
    assert network.baseline
    return network.baseline.gflops or 0, network.gain_percent or 0


def _protocols(networks: Sequence[Published]) -> str:
    """What the caption says of published gains."""
    sources = dict.fromkeys(network.source for network in networks)
    named = text.joined([f"{source.title} ({source.throughput})" for source in sources])
    return f" Grey, hollow: published, {named}." if sources else ""


def _label(axis: "Axes", points: Rows, unit: float) -> None:
    """Name each series at its last point, and each size once, at the highest point above its baseline."""
    labels = []
    looks, series = _looks(points), _series(points)
    ends = [group[-1] for group in series.values()]
    highest = [max(group, key=lambda row: row["speedup"]) for group in by(points, "baseline_label").values()]
    for name, group in series.items():
        for row in group:
            last = row in ends
            if last or row in highest:
                words = _name(row) if last else size_of(row["candidate_label"])
                place = row["baseline_macs"] / unit, _gain(row["speedup"])
                labels.append(Label(*place, words, looks[name].color, bold=last))
    for name, line in _lines(_published(points)):
        for network in line:
            words = f"{name}, published" if network is line[-1] else size_of(network.label)
            labels.append(Label(*_place(network), words, MUTED))
    place_labels(axis, labels)


def _series(points: Rows) -> dict[str, list[Row]]:
    """The sizes of a version against one baseline, joined by a line; a network that is not ours is alone."""
    series: dict[str, list[Row]] = {}
    for row in points:
        ours = [read(row[f"{role}_label"]) for role in ("candidate", "baseline")]
        name = " against ".join(own.version.label(own.family) for own in ours if own)
        words = SEPARATOR.join([name, *which(row, but=RESOLUTION.axis)])
        series.setdefault(words if all(ours) else _name(row), []).append(row)
    return {name: sorted(group, key=lambda row: row["baseline_macs"]) for name, group in series.items()}


def _looks(points: Rows) -> dict[str, Look]:
    """One look per series: that of its version; by number where others of the same have it too, as those of
    another decoder, and of networks that are not ours.
    """
    series = _series(points)
    told_apart = any(which(row, but=RESOLUTION.axis) for row in points)
    if not told_apart and family_of(points[0]["baseline_label"]):
        return {name: version_look(version_of(group[0]["candidate_label"])) for name, group in series.items()}
    return {name: look(number) for number, name in enumerate(series)}


def _name(row: Row) -> str:
    return text.printable(SEPARATOR.join([text.shortened(row["pair_name"]), *which(row)]))


def _over_another(row: Row) -> bool:
    """Whether the baseline is none of the plain networks that the others are compared with."""
    return version_of(row["baseline_label"]) != BASELINE


def _gain(speedup: float) -> float:
    return (speedup - 1) * 100
