"""Trainings as one object: how right the networks became, step by step, and what it took."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flopbench.report import text
from flopbench.report.cells import Row
from flopbench.report.findings import Answer
from flopbench.report.page import Origin, Page, checked_ids
from flopbench.report.reported import Reported
from flopbench.report.table import Column, Table, words
from flopbench.results.measures import MEASURES, PIXELS, TOP1, Measure
from flopbench.results.training_folder import TrainingFolder
from flopbench.results.trainings import Point, TrainingInfo
from flopbench.timing.statistics import share_interval

if TYPE_CHECKING:
    import pandas as pd

    from flopbench.report.pictures import Drawing

IMAGENET = 1000
"""Classes of the data that the accuracies are of which recipes expect."""

LEGEND = (
    "Top-1 is the share of validation images whose likeliest class is right, of the averaged weights (EMA) "
    "where the recipe has some; flip consistency is the share of images that are predicted to be what their "
    "mirror images are. Seconds are those of training alone: evaluations, compilation and checkpoints are "
    "not among them. MACs are those of forward and backward; 1 MAC = 2 FLOPs. Intervals of accuracies are "
    "Wilson's, of images drawn at random: another seed differs by more."
)


class Trainings(Reported):
    """One training, or several side by side, as `train` and `load` give it.

    Attributes:
        folders: of the trainings.
    """

    def __init__(self, folders: Iterable[TrainingFolder]) -> None:
        self.folders: tuple[TrainingFolder, ...] = tuple(folders)
        checked_ids([folder.info.id for folder in self.folders], "training")

    @classmethod
    def open(cls, *folders: str | Path) -> Self:
        """Those in folders that `flopbench train` wrote, ended or not.

        Raises:
            FlopbenchError: one holds none, or two have the same id.
        """
        return cls(TrainingFolder.open(Path(folder)) for folder in folders)

    @cached_property
    def _points(self) -> list[tuple[TrainingInfo, list[Point]]]:
        return [(folder.info, folder.points()) for folder in self.folders]

    @cached_property
    def _rows(self) -> list[Row]:
        return [_row(info, point) for info, points in self._points for point in points]

    def frame(self) -> "pd.DataFrame":
        """A row per evaluation.

        Columns: `training` (its id), `label`, `name`, `recipe`, `data`, `seed`, `step`, `epoch`, `samples`,
        `seconds`, `joules`, `macs`, `rate` in images per second, `loss`, `kernels`, `top1`, `top5`, `nll`,
        `miou`, `mirrored_top1`, `mirrored_miou`, `flip_consistency`, of the averaged weights `ema_top1` and
        so on, `best_top1`, that of the averaged weights where there are some, and `figure`, what decides of
        the same: the `measure` of the `task`.
        """
        import pandas as pd

        return pd.DataFrame(self._rows)

    @property
    def answers(self) -> list[Answer]:
        """What each training came to, in plain words."""
        return [_answer(info, points) for info, points in self._points]

    def tables(self) -> list[Table | str]:
        """The evaluations of each training."""
        if not self._rows:
            return ["There is no evaluation yet."]
        several = len(self.folders) > 1
        return [Table("Trainings" if several else "Training", (*_WHAT[: 2 * several], *_COLUMNS), self._rows)]

    def drawings(self) -> "Iterable[Drawing | None]":
        """Accuracy and loss over the time of training."""
        from flopbench.report.pictures.training import curves

        yield curves(self._points)

    def nothing_drawn(self) -> str:
        """What a picture would need."""
        return "there is no evaluation yet"

    def page(self) -> Page:
        """The report of the trainings."""
        origins = [
            Origin(info.id, info.created, _said(info), info.command, info.environment)
            for info, _ in self._points
        ]
        title = f"Training of {text.joined([info.label for info, _ in self._points])}"
        pixels = any(info.measure.of == "pixels" for info, _ in self._points)
        return self._page(title, origins, f"{LEGEND} {PIXELS}" if pixels else LEGEND)


def _said(info: TrainingInfo) -> str:
    return f"{info.label} by {info.recipe.name} on {info.data.name}, seed {info.seed}"


def _row(info: TrainingInfo, point: Point) -> Row:
    row: Row = {
        "training": info.id,
        "label": info.label,
        "name": info.name,
        "recipe": info.recipe.name,
        "task": info.recipe.task,
        "measure": info.measure.name,
        "data": info.data.name,
        "seed": info.seed,
        "step": point.step,
        "epoch": info.recipe.epochs * point.step / info.steps,
        "samples": point.samples,
        "seconds": point.seconds,
        "joules": point.joules,
        "macs": point.macs,
        "rate": point.rate,
        "loss": point.loss,
        "kernels": point.kernels,
    }
    for prefix, accuracy in (("", point.accuracy), ("ema_", point.ema)):
        row |= {
            f"{prefix}top1": accuracy and accuracy.plain.top1,
            f"{prefix}top5": accuracy and accuracy.plain.top5,
            f"{prefix}nll": accuracy and accuracy.plain.nll,
            f"{prefix}miou": accuracy and accuracy.plain.miou,
            f"{prefix}mirrored_top1": accuracy and accuracy.mirrored.top1,
            f"{prefix}mirrored_miou": accuracy and accuracy.mirrored.miou,
            f"{prefix}flip_consistency": accuracy and accuracy.flip_consistency,
        }
    return row | {"best_top1": point.best.plain.top1, "figure": point.best.plain.figure}


_share = partial(text.percent, decimals=1)


def _by_measure(header: str, prefix: str, rank: int = 1) -> Iterator[Column]:
    """A column per measure, `{}` in its header, with the figures of those trainings that it decides."""

    def of(measure: Measure) -> Column:
        def figure(row: Row) -> float | None:
            return row[prefix + measure.field] if row["measure"] == measure.name else None

        return Column(header.format(measure), figure, _share, rank=rank)

    return map(of, MEASURES.values())


_WHAT = (words("model", "label"), words("training"))

_COLUMNS = (
    Column("step", write=text.exact, rank=0),
    Column("epoch", write="{:.4g}".format),
    Column("train time", "seconds", text.duration),
    Column("images/s", "rate", text.significant, rank=2),
    Column("loss", write="{:.4f}".format, rank=2),
    *_by_measure("{}", ""),
    *_by_measure("EMA's\n{}", "ema_"),
    *_by_measure("mirrored\n{}", "mirrored_", rank=3),
    Column("flip\nconsistency", "flip_consistency", text.coverage, rank=3),
    Column("MACs", "macs", text.count, rank=4),
    Column("joules", write=text.count, rank=4),
    words("what its operations ran as", "kernels", rank=5, wraps=True),
)


def _answer(info: TrainingInfo, points: Sequence[Point]) -> Answer:
    """What one training came to."""
    device = text.with_article(text.printable(info.environment.device_name))
    what = f"On {device}, {text.printable(_said(info))}"
    if not points:
        return Answer(info.id, f"{what}: no evaluation yet.", ())
    last = points[-1]
    ended = last.step == info.steps
    weights = "the averaged weights" if last.ema else "the weights"
    when = "at the end" if ended else f"after {last.step} of {info.steps} steps, so far"
    scores, measure = last.best.plain, info.measure
    interval = ""
    if measure == TOP1:
        right = share_interval(scores.top1, last.best.images)
        interval = f" (95 % interval {_share(right.low)} to {_share(right.high)}, of the images)"
    headline = (
        f"{what}: {weights} have {_share(scores.figure)} {measure} on the {text.exact(last.best.images)} "
        f"validation images {when}{interval}, in {text.duration(last.seconds)} of training."
    )
    expected = info.recipe.expected.get(info.name)
    if ended and expected and measure == TOP1 and info.validation.classes == IMAGENET:
        difference = text.points(scores.top1 - expected.top1 / 100)
        headline += (
            f" {expected.source} has {text.percent(expected.top1 / 100, 1)} by this recipe: a difference of "
            f"{difference} points."
        )
    best = max(points, key=lambda point: point.best.plain.figure)
    remarks = [
        f"On the mirror images it is {_share(last.best.mirrored.figure)} {measure}, and for "
        f"{text.coverage(last.best.flip_consistency)} of the {measure.of} the same is predicted as for their "
        "mirror images."
    ]
    if best.best.plain.figure > scores.figure:
        remarks.append(
            f"The best evaluation is that after {best.step} steps, with {_share(best.best.plain.figure)}, "
            "chosen by the images that it is measured on."
        )
    return Answer(info.id, _plain(headline), tuple(map(_plain, remarks)))


def _plain(sentence: str) -> str:
    return sentence.replace("\u00a0", " ")
