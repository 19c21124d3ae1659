"""Published accuracies against FLOPs, and against the time measured here."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from flopbench.report import text
from flopbench.report.cells import Rows, headline
from flopbench.report.labels import family_of, size_of, version_of
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.gain import nearest_to_paper, panel_title
from flopbench.report.pictures.style import Label, log_axis, panels, place_labels, told, version_look
from flopbench.report.published import Published, with_accuracy
from flopbench.results import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy(runs: Sequence[Run], cells: Rows) -> Drawing | None:
    """Top-1 against FLOPs as published, and beside it against the time an image measured in each run.

    None unless some run measured a network whose accuracy is published.
    """
    known = with_accuracy()
    times: list[tuple[Run, Rows, dict[str, float]]] = []
    for run in runs:
        own = [row for row in cells if row["run"] == run.info.id]
        seconds = _times(nearest_to_paper(headline(own)))
        if any(network.label in seconds for network in known):
            times.append((run, own, seconds))
    families = [
        family
        for family in dict.fromkeys(family_of(network.label) for network in known)
        if any(family_of(n.label) == family and n.label in seconds for _, _, seconds in times for n in known)
    ]
    if not families:
        return None
    columns = 1 + len(times)
    figure, axes = panels(len(families) * columns, columns=columns, size=(4.2, 3.3))
    labels: list[tuple[Axes, list[Label]]] = []
    for row, family in enumerate(families):
        own = [network for network in known if family_of(network.label) == family]
        axis, *others = axes[row * columns : (row + 1) * columns]
        labels.append((axis, _draw(axis, own, {network.label: network.gflops or 0 for network in own})))
        axis.set_title(f"{family}\nas published")
        axis.set_ylabel("ImageNet-1K top-1 (%)")
        axis.set_xlabel("FLOPs as published, one image (10⁹)")
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
    shown = [network for network in known if family_of(network.label) in families]
    batches = sorted({r["batch_size"] for _, own, _ in times for r in nearest_to_paper(own)})
    return Drawing(
        "accuracy",
        "Published accuracy, against FLOPs and against measured time",
        f"Accuracies and FLOPs are published: {_credits(shown)}. "
        f"Times are measured here at batch {', '.join(map(str, batches))}. Up and to the left is better.",
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


def _credits(networks: Sequence[Published]) -> str:
    """Whose figures they are: `X and E by *title* (where; how they were read)`."""
    said = []
    for source in dict.fromkeys(network.source for network in networks):
        own = [version_of(n.label).label("X") for n in networks if n.source == source]
        versions = text.joined(list(dict.fromkeys(own)))
        said.append(f"{versions} by {source.title} ({source.where}; {source.read})")
    return "; ".join(said)


def _draw(axis: "Axes", networks: Sequence[Published], x: dict[str, float]) -> list[Label]:
    """Draw a line a version; returns the labels, to be placed once all panels are drawn."""
    labels = []
    for version in dict.fromkeys(version_of(network.label) for network in networks):
        line = [network for network in networks if version_of(network.label) == version]
        own = version_look(version)
        axis.plot([x[n.label] for n in line], [n.top1 or 0 for n in line], **own.line)
        for network in line:
            last = network is line[-1]
            words = network.label if last else size_of(network.label)
            labels.append(Label(x[network.label], network.top1 or 0, words, own.color, bold=last))
    low, high = min(x.values()), max(x.values())
    axis.set_xscale("log")
    axis.set_xlim(low / 1.4, high * 2.6)
    log_axis(axis.xaxis, low, high)
    axis.margins(y=0.14)
    return labels
