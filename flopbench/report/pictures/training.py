"""Trainings: how accuracy and loss go over the time of training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flopbench.report import text
from flopbench.report.labels import version_of
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.race import SPENDINGS
from flopbench.report.pictures.style import Look, columns, look, name_of, panels, told, version_look
from flopbench.results.trainings import Point, TrainingInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Training = tuple[TrainingInfo, Sequence[Point]]


def curves(trainings: Sequence[Training]) -> Drawing | None:
    """Accuracy and loss against the measured time of training: a panel per measure, a line per training."""
    shown = [(info, points) for info, points in trainings if points]
    if not shown:
        return None
    unit, label = SPENDINGS[0].unit(max(points[-1].seconds for _, points in shown))
    measures = [*dict.fromkeys(info.measure for info, _ in shown)]
    losses = any(point.loss is not None for _, points in shown for point in points)
    figure, axes = panels(len(measures) + losses, columns=2, size=(4.6, 3.0))
    for (info, points), own in zip(shown, _looks(shown), strict=True):
        _draw_accuracy(axes[measures.index(info.measure)], info, points, unit, own)
        known = [(point.seconds / unit, point.loss) for point in points if point.loss is not None]
        if known:
            axes[-1].plot(*zip(*known, strict=True), **own.line)
    names = [f"validation {measure} (%)" for measure in measures] + ["training loss"] * losses
    for axis, name in zip(axes, names, strict=True):
        axis.set_ylabel(name)
        axis.set_xlabel(label)
        axis.set_xlim(left=0)
    handles = [handle for axis in axes for handle in axis.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper left", ncols=columns(2))
    averaged = any(point.ema for _, points in shown for point in points)
    return Drawing(
        "accuracy-against-time",
        "Accuracy and loss against the time of training",
        "Evaluations and compilation are outside of the time; a point per evaluation."
        + " Bold, of the averaged weights; thin, of the weights themselves." * averaged,
        "Validation accuracy, and the loss where it is known, against the time of training. "
        + told(
            f"{info.label} on {info.data.name}, seed {info.seed}: "
            f"{text.percent(points[-1].best.plain.figure, 1)} after {text.seconds(points[-1].seconds)}"
            for info, points in shown
        ),
        figure,
    )


def _draw_accuracy(axis: "Axes", info: TrainingInfo, points: Sequence[Point], unit: float, own: Look) -> None:
    seconds = [point.seconds / unit for point in points]
    if any(point.ema for point in points):
        axis.plot(
            seconds, [100 * point.accuracy.plain.figure for point in points], color=own.color, linewidth=0.8
        )
    name = f"{name_of(info.label)} on {name_of(info.data.name)}, seed {info.seed}"
    axis.plot(seconds, [100 * point.best.plain.figure for point in points], **own.line, label=name)


def _looks(trainings: Sequence[Training]) -> list[Look]:
    """Those of their versions, where these are all different."""
    versions = [version_of(info.label) for info, _ in trainings]
    if len(set(versions)) == len(versions):
        return [version_look(version) for version in versions]
    return [look(number) for number in range(len(versions))]
