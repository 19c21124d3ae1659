"""Trainings on disk: `training.json` says what is trained on what, `points.jsonl` has a line per evaluation.

A step that was evaluated again, as a training does that was killed after it and went on from a checkpoint
before it, has its later line count.
"""

from flopbench.results.folder import RecordsFolder
from flopbench.results.trainings import Point, TrainingInfo

CHECKPOINT = "checkpoint.pt"
WEIGHTS, EMA, BEST = "weights.safetensors", "ema.safetensors", "best.safetensors"


class TrainingFolder(RecordsFolder[TrainingInfo, Point]):
    """The folder of one training.

    Beside the records lie `checkpoint.pt`, from which it goes on, and weights as safetensors: those of the
    last evaluation, their average, and the best of all evaluations (averaged where there is an average).
    """

    what, done = "training", "trained"
    info_file, lines_file = "training.json", "points.jsonl"
    info_kind, line_kind = TrainingInfo, Point

    def tidy(self) -> None:
        """Take away what a process left that was killed while it wrote; whole files and lines stay."""
        self.set_torn_lines_aside()
        for name in (CHECKPOINT, WEIGHTS, EMA, BEST):
            for temporary in self.path.glob(f".{name}.*"):
                temporary.unlink(missing_ok=True)

    def points(self) -> list[Point]:
        """The evaluations in the order of their steps."""
        latest = {point.step: point for point in self.lines()}
        return [latest[step] for step in sorted(latest)]
