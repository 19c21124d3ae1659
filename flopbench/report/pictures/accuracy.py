"""The paper's accuracies against FLOPs, and against the time measured here."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from flopbench.report import text
from flopbench.report.cells import Rows, headline
from flopbench.report.paper import Published, published
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.gain import nearest_to_paper, panel_title
from flopbench.report.pictures.style import VERSION_LOOKS, Label, log_axis, panels, place_labels, told
from flopbench.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy(runs: Sequence[Run], cells: Rows) -> Drawing | None:
    """Top-1 against FLOPs as published, and beside it against the time an image measured in each run.

    None unless some run measured at least two networks of a family whose accuracy the paper gives.
    """
    known = [network for network in published() if network.top1 is not None]
    times: list[tuple[Run, Rows, dict[str, float]]] = []
    for run in runs:
        own = [row for row in cells if row["run"] == run.info.id]
        seconds = _times(nearest_to_paper(headline(own)))
        if any(network.label in seconds for network in known):
            times.append((run, own, seconds))
    families = [
        family
        for family in dict.fromkeys(network.family for network in known)
        if any(n.family == family and n.label in seconds for _, _, seconds in times for n in known)
    ]
    if not families:
        return None
    columns = 1 + len(times)
    figure, axes = panels(len(families) * columns, columns=columns, size=(4.2, 3.3))
    labels: list[tuple[Axes, list[Label]]] = []
    for row, family in enumerate(families):
        own = [network for network in known if network.family == family]
        axis, *others = axes[row * columns : (row + 1) * columns]
        labels.append((axis, _draw(axis, own, {network.label: network.gflops for network in own})))
        axis.set_title(f"{family}\nas published")
        axis.set_ylabel("ImageNet-1K top-1 (%)")
        axis.set_xlabel("FLOPs as the paper counts them, one image (10⁹)")
        for other, (run, run_cells, seconds) in zip(others, times, strict=True):
            other.sharey(axis)
            measured = [network for network in own if network.label in seconds]
            if not measured:
                other.set_visible(False)
                continue
            labels.append(
                (other, _draw(other, measured, {n.label: seconds[n.label] * 1e3 for n in measured}))
            )
            other.set_title(panel_title(run, run_cells))
            other.set_xlabel("measured forward time, one image (ms)")
    for axis, words in labels:
        place_labels(axis, words)
    batches = sorted({r["batch_size"] for _, own, _ in times for r in nearest_to_paper(own)})
    return Drawing(
        "accuracy",
        "The paper's accuracy, against FLOPs and against measured time",
        "Accuracies and FLOPs are the paper's (trained networks, read off its figures, ±0.1 points); "
        f"times are measured here at batch {', '.join(map(str, batches))}. Up and to the left is better.",
        "Published top-1 accuracy against published FLOPs, and against the time measured on the device. "
        + told(
            f"{network.label}: {network.top1} %, {text.seconds(seconds[network.label])}"
            for _, _, seconds in times
            for network in known
            if network.label in seconds
        ),
        figure,
    )


def _times(points: Rows) -> dict[str, float]:
    """Seconds an image of each network, the median where several pairs hold it."""
    seconds: dict[str, list[float]] = {}
    for row in points:
        for role in ("baseline", "candidate"):
            seconds.setdefault(row[f"{role}_label"], []).append(row[f"{role}_seconds"] / row["batch_size"])
    return {label: median(values) for label, values in seconds.items()}


def _draw(axis: "Axes", networks: Sequence[Published], x: dict[str, float]) -> list[Label]:
    """Draw a line a version; returns the labels, to be placed once all panels are drawn."""
    labels = []
    for version in dict.fromkeys(network.version for network in networks):
        line = [network for network in networks if network.version == version]
        own = VERSION_LOOKS[version]
        axis.plot([x[n.label] for n in line], [n.top1 or 0 for n in line], **own.line)
        for network in line:
            last = network is line[-1]
            words = network.label if last else network.size
            labels.append(Label(x[network.label], network.top1 or 0, words, own.color, bold=last))
    low, high = min(x.values()), max(x.values())
    axis.set_xscale("log")
    axis.set_xlim(low / 1.4, high * 2.6)
    log_axis(axis.xaxis, low, high)
    axis.margins(y=0.14)
    return labels
