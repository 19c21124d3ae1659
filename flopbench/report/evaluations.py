"""Evaluations as one object: how right networks are, how fast, and what that comes to."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from flopbench.errors import FlopbenchError
from flopbench.report import text
from flopbench.report.cells import Row, Rows, by
from flopbench.report.engines import ran_in
from flopbench.report.findings import Answer
from flopbench.report.labels import read
from flopbench.report.page import Origin, Page, checked_ids, flag_groups
from flopbench.report.reported import Reported
from flopbench.report.table import Column, Table, words
from flopbench.results import read_record
from flopbench.results.measures import MEASURES, PIXELS, TOP1, Measure
from flopbench.results.trainings import EvaluationRecord, Scores
from flopbench.symmetries.registry import BASELINE
from flopbench.timing.statistics import share_interval

if TYPE_CHECKING:
    import pandas as pd

    from flopbench.report.pictures import Drawing

FILE = "evaluation.json"
"""What a folder of an evaluation has in it."""

LEGEND = (
    "Top-1 is the share of images whose likeliest class is right, top-5 that of images whose class is among "
    "the five likeliest, NLL the mean negative log-likelihood of the right class in nats. Flip consistency "
    "is the share of images that are predicted to be what their mirror images are. TTA takes the mean of the "
    "probabilities of an image and its mirror image, which runs the network twice: half as many images per "
    "second. Intervals of accuracies are Wilson's, of images drawn at random. 1 MAC = 2 FLOPs."
)

NO_INTERVAL = (
    "Figures of pixels have no interval: neighbours are right or wrong together, and mIoU is no mean over "
    "images."
)


class Evaluations(Reported):
    """One evaluation, or several side by side, as `evaluate` and `load` give it.

        evaluation = flopbench.evaluate("vit_s16.flop", weights="weights.safetensors", data="digits")
        print(evaluation)
        evaluation.frame()[["label", "top1", "mirrored_top1", "throughput"]]

    Attributes:
        records: a record per evaluation.
    """

    def __init__(self, records: Iterable[EvaluationRecord]) -> None:
        self.records: tuple[EvaluationRecord, ...] = tuple(records)
        checked_ids([record.id for record in self.records], "evaluation")

    @classmethod
    def open(cls, *folders: str | Path) -> Self:
        """Those in folders that `flopbench evaluate` wrote.

        Raises:
            FlopbenchError: one holds none, or two have the same id.
        """
        files = [Path(folder) / FILE for folder in folders]
        for file in files:
            if not file.is_file():
                raise FlopbenchError(f"{file.parent} is not an evaluation: it has no {FILE}")
        return cls(read_record(file, EvaluationRecord) for file in files)

    @cached_property
    def _rows(self) -> list[Row]:
        # Said where a network may have been evaluated in several ways.
        several = {
            axis for axis in ("dtype", "mode") if len({getattr(one, axis) for one in self.records}) > 1
        }
        return [{**_row(one), "named": _named(one, several)} for one in self.records]

    def frame(self) -> "pd.DataFrame":
        """A row per evaluation.

        Columns: what was evaluated (`evaluation`, its id; `label`, `name`, `task`, `weights`,
        `weights_digest`, `parameters`, `macs`), on what (`data`, `split`, `images`, `image_size`, `crop`,
        `interpolation`), for the images, with `mirrored_` for their mirror images and with `averaged_` for
        mirror test-time augmentation `top1` (with `_low` and `_high`, the ends of its 95 % interval, of
        images), `top5`, `nll`, `miou`, and `figure`, what decides: the `measure`; then
        `flip_consistency`, how it was timed (`device_name`, `batch_size`, `dtype`, `mode`, `engine`, `impl`,
        `kernels`, `world_size`), `throughput` in images per second with `_low` and `_high`,
        `seconds_per_image`, `averaged_throughput`, `seconds` in all, and `flags`.
        """
        import pandas as pd

        return pd.DataFrame(self._rows)

    @property
    def answers(self) -> list[Answer]:
        """What the evaluations on each data set and device come to, in plain words."""
        groups = by(self._rows, "data", "split", "device_name", "task").values()
        return [_answer(group) for group in groups]

    def tables(self) -> list[Table | str]:
        """How right the networks are, and how fast."""
        return [
            _table("Accuracy", self._rows, _ACCURACY),
            _table("Speed and size", self._rows, _SPEED),
        ]

    def drawings(self) -> "Iterable[Drawing | None]":
        """Accuracy against measured time."""
        from flopbench.report.pictures.accuracy import measured_accuracy

        yield measured_accuracy(self._rows)

    def nothing_drawn(self) -> str:
        """What a picture would need."""
        return "no evaluation was timed"

    def page(self) -> Page:
        """The report of the evaluations."""
        origins = [
            Origin(one.id, one.created, f"evaluated on {one.data.name}", one.command, one.environment)
            for one in self.records
        ]
        names = dict.fromkeys(record.data.name for record in self.records)
        flags = flag_groups(((one.id, one.flags) for one in self.records), "evaluation")
        pixels = any(record.measure.of == "pixels" for record in self.records)
        legend = f"{LEGEND} {PIXELS} {NO_INTERVAL}" if pixels else LEGEND
        return self._page(f"Accuracy on {text.joined(list(names))}", origins, legend, flags)


def _row(record: EvaluationRecord) -> Row:
    found, images = record.accuracy, record.accuracy.images
    row: dict[str, Any] = {
        "evaluation": record.id,
        "label": record.label,
        "name": record.name,
        "task": record.task,
        "measure": record.measure.name,
        "weights": record.weights,
        "weights_digest": record.weights_digest,
        "parameters": record.parameters,
        "macs": record.macs,
        "data": record.data.name,
        "split": record.data.split,
        "images": images,
        "image_size": "×".join(map(str, record.image_size)),
        "crop": record.crop,
        "interpolation": record.interpolation,
        **_scores("", found.plain, images),
        **_scores("mirrored_", found.mirrored, images),
        **_scores("averaged_", found.averaged, images),
        "flip_consistency": found.flip_consistency,
        "device_name": record.environment.device_name,
        "batch_size": record.batch_size,
        "dtype": record.dtype,
        "mode": record.mode,
        "engine": record.deployed and f"{record.deployed.provider}, {record.deployed.version}",
        "impl": record.impl,
        "kernels": record.kernels,
        "world_size": record.world_size,
    }
    speed = record.throughput
    return row | {
        "throughput": speed and speed.estimate,
        "throughput_low": speed and speed.low,
        "throughput_high": speed and speed.high,
        "seconds_per_image": speed and 1 / speed.estimate,
        "averaged_throughput": speed and speed.estimate / 2,
        "seconds": record.seconds,
        "flags": "; ".join(flag.kind for flag in record.flags),
    }


def _named(record: EvaluationRecord, several: Collection[str]) -> str:
    """`E(ViT-S/16) in int8 in OpenVINO`: with what `several` names of the way in which it ran."""
    dtype = f" in {record.dtype}" if "dtype" in several else ""
    mode = f" {ran_in(record.mode)}" if "mode" in several else ""
    return f"{record.label}{dtype}{mode}"


def _scores(prefix: str, scores: Scores | None, images: int) -> Row:
    # Pixels are not drawn one by one, and mIoU is no mean over images: neither has Wilson's interval.
    drawn = share_interval(scores.top1, images) if scores and scores.measure == TOP1 else None
    return {
        f"{prefix}top1": scores and scores.top1,
        f"{prefix}top1_low": drawn and drawn.low,
        f"{prefix}top1_high": drawn and drawn.high,
        f"{prefix}top5": scores and scores.top5,
        f"{prefix}nll": scores and scores.nll,
        f"{prefix}miou": scores and scores.miou,
        f"{prefix}figure": scores and scores.figure,
    }


def _with_ends(key: str, write: Callable[[float, float, float], str], header: str, rank: int) -> Column:
    """A figure with the ends of its interval, by which of its keys is told; none without such an interval."""

    def found(row: Row) -> tuple[float, float, float] | None:
        return None if row[f"{key}_low"] is None else (row[key], row[f"{key}_low"], row[f"{key}_high"])

    return Column(f"{header}\n[95 % interval]", found, lambda ends: write(*ends), rank=rank)


def _pixels_right(row: Row) -> float | None:
    return row["top1"] if _measure(row).of == "pixels" else None


def _measure(row: Row) -> Measure:
    return MEASURES[row["task"]]


_rate = partial(text.between, write=text.significant)
_share = partial(text.percent, decimals=1)
_nats = "{:.3f}".format

_WHAT = (
    words("model", "label"),
    words("weights"),
    words("data"),
    words("split"),
    words("dtype"),
    words("mode"),
)

_ACCURACY = (
    *_WHAT,
    Column("images", write=text.exact, rank=5),
    _with_ends("top1", text.percent_interval, "top-1", 1),
    Column("top-5", "top5", _share, rank=2),
    Column("mIoU", "miou", _share),
    Column("pixels\nright", _pixels_right, _share, rank=2),
    Column("NLL", "nll", _nats, rank=2),
    _with_ends("mirrored_top1", text.percent_interval, "mirrored\ntop-1", 1),
    Column("mirrored\ntop-5", "mirrored_top5", _share, rank=3),
    Column("mirrored\nmIoU", "mirrored_miou", _share),
    Column("mirrored\nNLL", "mirrored_nll", _nats, rank=3),
    Column("flip\nconsistency", "flip_consistency", text.coverage, rank=2),
    _with_ends("averaged_top1", text.percent_interval, "with TTA\ntop-1", 4),
    Column("with TTA\ntop-5", "averaged_top5", _share, rank=4),
    Column("with TTA\nmIoU", "averaged_miou", _share, rank=4),
    Column("with TTA\nNLL", "averaged_nll", _nats, rank=4),
)

_SPEED = (
    *_WHAT,
    words("device", "device_name"),
    words("image", "image_size"),
    Column("batch", "batch_size"),
    words("engine", rank=4, wraps=True),
    Column("devices", "world_size"),
    _with_ends("throughput", _rate, "images/s", 1),
    Column("images/s\nwith TTA", "averaged_throughput", text.significant, rank=2),
    Column("time\nper image", "seconds_per_image", text.seconds, rank=2),
    Column("parameters", write=text.count, rank=3),
    Column("MACs", "macs", text.count, rank=3),
    words("what its operations ran as", "kernels", rank=4, wraps=True),
    words("flags", rank=5, wraps=True),
)

# What most evaluations that stand side by side have in common; shown only where it differs.
_OFTEN_THE_SAME = {"data", "split", "device", "image", "batch", "dtype", "mode", "devices"}


def _table(title: str, rows: Rows, columns: Sequence[Column]) -> Table:
    """A table without what all its rows have in common; of one row, with all that it was measured under."""

    def says_something(column: Column) -> bool:
        shared = len(rows) > 1 and len({column.show(row) for row in rows}) == 1
        return not (shared and column.header in _OFTEN_THE_SAME)

    return Table(title, [column for column in columns if says_something(column)], rows)


def _answer(rows: Rows) -> Answer:
    """What networks on one data set and device come to."""
    first = rows[0]
    device = text.with_article(text.printable(first["device_name"]))
    data = text.printable(f"{first['data']} ({first['split']})")
    measure = _measure(first)
    where = f"On {device}, {measure.on} the {text.exact(first['images'])} images of {data}"
    if len(rows) == 1:
        return Answer(first["evaluation"], f"{where} {_does(first)}.", tuple(_remarks(first)))
    best = max(rows, key=lambda row: row["figure"])
    headline = f"{where} {text.printable(best['named'])} {measure.most.format(_figure(best))}{_speed(best)}."
    points = [_compared(*pair) for pair in _pairs(rows)]
    points += [" ".join([f"{_does(row)}.", *_remarks(row)]) for row in rows]
    return Answer(first["evaluation"], headline, tuple(points))


def _does(row: Row) -> str:
    """`ViT-S/16 gets 78.0 % (95 % interval 77.2 % to 78.8 %) right, at 60.0 images per second`."""
    return f"{text.printable(row['named'])} {_measure(row).said.format(_figure(row))}{_speed(row)}"


def _figure(row: Row) -> str:
    """What decides, with its interval where it has one."""
    shown = _share(row["figure"])
    if _measure(row) == TOP1:
        low, high = (_share(row[f"top1_{end}"]) for end in ("low", "high"))
        shown += f" (95 % interval {low} to {high})"
    return shown.replace("\u00a0", " ")


def _speed(row: Row) -> str:
    return f", at {text.significant(row['throughput'])} images per second" if row["throughput"] else ""


def _remarks(row: Row) -> list[str]:
    """What is to be said of mirror images, a sentence each."""
    measure = _measure(row)
    mirrored = measure.said.format(_share(row["mirrored_figure"]))
    said = [
        f"{measure.on.capitalize()} the mirror images it {mirrored}, and predicts the same for "
        f"{text.coverage(row['flip_consistency'])} of the {measure.of} and their mirror images."
    ]
    if row["averaged_figure"] is not None:
        speed = row["averaged_throughput"]
        cost = f", {text.significant(speed)} images per second" if speed else ""
        said.append(
            f"With mirror test-time augmentation it {measure.said.format(_share(row['averaged_figure']))} "
            f"({text.points(row['averaged_figure'] - row['figure'])} points), at twice the cost{cost}."
        )
    return [sentence.replace("\u00a0", " ") for sentence in said]


def _pairs(rows: Rows) -> list[tuple[Row, Row]]:
    """Each symmetric network with the plain one of its family and size, where there is one of each."""
    own = [(row, label) for row in rows if (label := read(row["label"]))]
    plain: dict[object, Row] = {}
    for row, label in own:
        if label.version == BASELINE:
            # Of several, the one that ran the same way; else the last.
            plain |= {label.network: row, _way(label.network, row): row}
    return [
        (plain.get(_way(label.network, row), plain[label.network]), row)
        for row, label in own
        if label.version != BASELINE and label.network in plain
    ]


def _way(network: str, row: Row) -> tuple[str, str, str]:
    return network, row["dtype"], row["mode"]


def _compared(x: Row, e: Row) -> str:
    """A symmetric network against the plain one, on the same images and by the same device."""
    names = [text.printable(row["named"]) for row in (e, x)]
    difference, measure = e["figure"] - x["figure"], _measure(e)
    sentence = f"{names[0]} against {names[1]}: {text.points(difference)} points of {measure}"
    if measure == TOP1:
        # Newcombe's: of two sets of images. Of the same images, as here, the true one is narrower.
        low = difference - ((e["top1"] - e["top1_low"]) ** 2 + (x["top1_high"] - x["top1"]) ** 2) ** 0.5
        high = difference + ((e["top1_high"] - e["top1"]) ** 2 + (x["top1"] - x["top1_low"]) ** 2) ** 0.5
        ends = f"{text.points(low)} to {text.points(high)}"
        sentence += f" (95 % interval {ends}, as if of different images)"
    alike = all(e[key] == x[key] for key in ("batch_size", "dtype", "mode", "world_size", "image_size"))
    if alike and e["throughput"] and x["throughput"]:
        sentence += f", and {text.times(e['throughput'] / x['throughput'])} as many images per second"
    return f"{sentence}.".replace("\u00a0", " ")
