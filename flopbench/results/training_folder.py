"""Trainings on disk: `training.json` says what is trained on what, `points.jsonl` has a line per evaluation.

A step that was evaluated again, as a training does that was killed after it and went on from a checkpoint
before it, has its later line count.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flopbench.errors import FlopbenchError
from flopbench.results.files import read_record, write_record
from flopbench.results.lines import append_line, locked, read_lines, set_torn_line_aside
from flopbench.results.run import made_folder
from flopbench.results.trainings import Point, TrainingInfo

TRAINING, POINTS = "training.json", "points.jsonl"
CHECKPOINT = "checkpoint.pt"
WEIGHTS, EMA, BEST = "weights.safetensors", "ema.safetensors", "best.safetensors"


class TrainingFolder:
    """The folder of one training. Reading never changes it; `append` adds a point and flushes it.

    Beside the records lie `checkpoint.pt`, from which it goes on, and weights as safetensors: those of the
    last evaluation, their average, and the best of all evaluations (averaged where there is an average).
    """

    def __init__(self, path: Path, info: TrainingInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def create(cls, path: Path, info: TrainingInfo) -> "TrainingFolder":
        """Make a new folder.

        Raises:
            RunExistsError: it exists already.
        """
        with made_folder(path):
            (path / POINTS).touch()
            write_record(path / TRAINING, info)
        return cls(path, info)

    @classmethod
    def open(cls, path: Path) -> "TrainingFolder":
        """Open an existing folder.

        Raises:
            FlopbenchError: it holds no training, or one of a schema that this version does not read.
        """
        file = path / TRAINING
        if not file.is_file():
            raise FlopbenchError(f"{path} is not a training: it has no {TRAINING}")
        return cls(path, read_record(file, TrainingInfo))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within it, no other process trains here.

        Raises:
            FlopbenchError: another process does.
        """
        with locked(self.path / TRAINING, f"{self.path} is being trained by another flopbench"):
            yield

    def append(self, point: Point) -> None:
        """Add an evaluation; it is on disk when this returns."""
        append_line(self.path / POINTS, point)

    def tidy(self) -> None:
        """Take away what a process left that was killed while it wrote; whole files and lines stay."""
        set_torn_line_aside(self.path / POINTS, Point)
        for name in (CHECKPOINT, WEIGHTS, EMA, BEST):
            for temporary in self.path.glob(f".{name}.*"):
                temporary.unlink(missing_ok=True)

    def points(self) -> list[Point]:
        """The evaluations in the order of their steps.

        A damaged line is passed over with a warning: it costs its own evaluation, and no other.

        Raises:
            FlopbenchError: the file cannot be read, or a line is of a newer schema.
        """
        path = self.path / POINTS
        if not path.is_file():
            raise FlopbenchError(f"{self.path} is not a training: it has no {POINTS}")
        latest = {point.step: point for point in read_lines(path, Point)}
        return [latest[step] for step in sorted(latest)]
