"""Accuracy against time: as it was measured, or as published, against FLOPs too."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from flopbench.models.tasks import CLASSIFICATION
from flopbench.report import text
from flopbench.report.cells import Row, Rows, by, headline
from flopbench.report.labels import family_of, size_of, version_of
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.gain import nearest_to_paper, panel_title
from flopbench.report.pictures.style import (
    MUTED,
    Label,
    columns,
    label_grid,
    log_axis,
    name_of,
    panels,
    place_labels,
    told,
    version_look,
    wrapped,
)
from flopbench.report.published import Published, with_accuracy
from flopbench.results import Run
from flopbench.results.measures import MEASURES, TOP1

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy(runs: Sequence[Run], cells: Rows) -> Drawing | None:
    """Top-1 against FLOPs as published, and beside it against the time an image measured in each run.

    None unless some run measured a network whose accuracy is published.
    """
    known = with_accuracy()
    times: list[tuple[Run, Rows, dict[str, float]]] = []
    for run in runs:
        # What is published are accuracies of classification.
        own = [row for row in cells if (row["run"], row["task"]) == (run.info.id, CLASSIFICATION.name)]
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


# How the accuracy of a network is drawn: on what, the prefix of its keys, how often the network runs for it,
# and how the marker is filled.
_SEEN: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("images", "", 1, {}),
    ("mirror images", "mirrored_", 1, {"markerfacecolor": "white"}),
    ("both, by TTA", "averaged_", 2, {"fillstyle": "left", "markerfacecoloralt": "white"}),
)


def measured_accuracy(evaluations: Rows) -> Drawing | None:
    """Measured accuracy against the measured time per image, a panel per data set, device and task.

    Args:
        evaluations: the rows of `Evaluations.frame`. Those whose time was not measured are left out, and
            there is no picture where that is so of all.
    """
    groups = by([row for row in evaluations if row["throughput"]], "data", "split", "device_name", "task")
    if not groups:
        return None
    figure, axes = panels(len(groups), columns=2, size=(4.6, 3.5))
    named: list[tuple[Axes, list[Label]]] = []
    for axis, ((data, split, device, _), rows) in zip(axes, groups.items(), strict=True):
        named.append((axis, _draw_evaluations(axis, rows)))
        axis.set_title(wrapped(f"{name_of(data)} ({text.printable(split)})\n{name_of(device)}"))
    measures = [MEASURES[task] for *_, task in groups]
    names = [f"measured {measure} (%)" for measure in measures]
    label_grid(axes, names, "measured forward time, one image (ms)")
    _evaluation_legend(figure, evaluations)
    for axis, labels in named:
        place_labels(axis, labels)
    timed = [row for rows in groups.values() for row in rows]
    sizes = sorted({row["batch_size"] for row in timed})
    return Drawing(
        "accuracy",
        "Measured accuracy against measured time",
        f"Accuracies and times are measured here, times at batch {text.joined([*map(str, sizes)], 'or')}. "
        + "With mirror test-time augmentation (TTA) a network runs twice. "
        * any(row["averaged_figure"] is not None for row in timed)
        + "Bars are 95 % intervals of images drawn at random. " * (TOP1 in measures)
        + "Up and to the left is better.",
        f"Measured {text.joined([*dict.fromkeys(measure.full for measure in measures)])} against the time "
        "measured per image. "
        + told(
            f"{row['label']} on {row['data']}: {text.percent(row['figure'], 1)}, mirrored "
            f"{text.percent(row['mirrored_figure'], 1)}, {text.seconds(row['seconds_per_image'])}"
            for row in timed
        ),
        figure,
    )


def _draw_evaluations(axis: "Axes", rows: Rows) -> list[Label]:
    """Draw a line per version of a family; returns the labels, to be placed once all panels are drawn."""
    labels, times = [], []
    several = [label for label, own in by(rows, "label").items() if len(own) > 1]
    lines = by([{**row, "line": _line(row)} for row in rows], "line")
    for line in lines.values():
        line = sorted(line, key=lambda row: row["seconds_per_image"])
        look = version_look(version_of(line[0]["label"]))
        for _, prefix, runs, fill in _SEEN:
            seen = [row for row in line if row[f"{prefix}figure"] is not None]
            at = [1e3 * runs * row["seconds_per_image"] for row in seen]
            tops = [100 * row[f"{prefix}figure"] for row in seen]
            joined = not prefix and len({row["label"] for row in line}) == len(line)
            style: dict[str, Any] = look.line | fill | ({} if joined else {"linestyle": "none"})
            # Where a network sees no difference, what it makes of the images themselves lies on top.
            axis.plot(at, tops, **style, zorder=2 if prefix else 3)
            times += at
            if runs > 1:
                for row, place, top in zip(seen, at, tops, strict=True):
                    axis.plot([place / runs, place], [100 * row["figure"], top], color=MUTED, linewidth=0.8)
        places = [(1e3 * row["seconds_per_image"], 100 * row["figure"]) for row in line]
        if MEASURES[line[0]["task"]] == TOP1:
            ends = [[100 * abs(row[f"top1_{end}"] - row["top1"]) for row in line] for end in ("low", "high")]
            axis.errorbar(*zip(*places, strict=True), yerr=ends, color=look.color, linestyle="none")
        for row, place in zip(line, places, strict=True):
            words = name_of(row["label"])
            if row["label"] in several:
                words += f", {text.shortened(text.printable(row['weights']), 24)}"
            labels.append(Label(*place, words, look.color, bold=True))
    low, high = min(times), max(times)
    axis.set_xscale("log")
    axis.set_xlim(low / 1.5, high * 1.9)
    log_axis(axis.xaxis, low, high)
    axis.margins(y=0.16)
    return labels


def _line(row: Row) -> tuple[object, ...]:
    """What is joined by a line: the sizes of one version of a family; what is not ours is alone."""
    family = family_of(row["label"])
    return (family, version_of(row["label"]).name) if family else (row["evaluation"],)


def _evaluation_legend(figure: Any, evaluations: Rows) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=words, color=MUTED, marker="o", linestyle="none", **fill)
        for words, prefix, _, fill in _SEEN
        if any(row[f"{prefix}figure"] is not None for row in evaluations)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=columns(len(handles)))
