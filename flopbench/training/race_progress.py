"""What a race looks like while it runs: a line per training, and live in a terminal what runs now."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from flopbench.report import text
from flopbench.results.races import RacesFolder
from flopbench.results.trainings import Point, Trial
from flopbench.training.heats import Heat, RaceObserver


def describe_heat(heat: Heat) -> str:
    """`E(ViT-96×4/7) (wide) on digits, seed 1`."""
    rival = "" if heat.entrant.key in ("baseline", "candidate") else f" ({heat.entrant.key})"
    return f"{heat.entrant.label}{rival} on {heat.race.data.name}, seed {heat.seed}"


def describe_trial(heat: Heat, trial: Trial) -> str:
    """One line on how a training ended."""
    what = describe_heat(heat)
    if trial.status != "ok" or not trial.points:
        return f"{what}  {trial.status}: {trial.reason}"
    last = trial.points[-1]
    line = f"{what}  {_right(last)} in {last.seconds:.1f} s of training"
    flags = sorted({flag.kind for flag in trial.flags})
    return f"{line}  ({', '.join(flags)})" if flags else line


def _right(point: Point) -> str:
    scores = point.best.plain
    return f"{scores.measure} {scores.figure:.1%}"


class RaceLog:
    """A line per training, without control codes: for files, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = self.done = 0

    def begin(self, folder: RacesFolder, left: Sequence[Heat], ended: int) -> None:
        """See `RaceObserver.begin`."""
        self.total, self.done = len(left) + ended, ended
        parts = [f"{text.counted(self.total, 'training')} on {folder.info.environment.device_name}"]
        parts += [f"{ended} of them ended before"] if ended else []
        self._print(f"{folder.info.title}: {', '.join(parts)}")
        for race in folder.info.races:
            if "mirror" in race.declared.rivals and race.entrant("mirror") is None:
                self._print(f"{race.key}: the recipe mirrors images, so X is the rival mirror, too")

    def heat(self, heat: Heat) -> None:
        """The line comes when the training has ended."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """Nothing."""

    def point(self, point: Point) -> None:
        """Nothing."""

    def finished(self, heat: Heat, trial: Trial) -> None:
        """See `RaceObserver.finished`."""
        self.done += 1
        self._print(f"[{self.done}/{self.total}] {describe_trial(heat, trial)}")

    def _print(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


class RaceLive(RaceLog):
    """A live bar with what runs now and the time that remains, under the lines of what has ended."""

    def __init__(self, console: Console, progress: Progress) -> None:
        super().__init__(console)
        self.progress = progress
        self.task = progress.add_task("", total=None, now="starting", remaining="")
        self.now = self.accuracy = ""
        self.begun = time.monotonic()
        self.before = 0

    def begin(self, folder: RacesFolder, left: Sequence[Heat], ended: int) -> None:
        """See `RaceObserver.begin`."""
        super().begin(folder, left, ended)
        self.begun, self.before = time.monotonic(), ended
        self.progress.update(self.task, total=self.total, completed=ended)

    def heat(self, heat: Heat) -> None:
        """See `RaceObserver.heat`."""
        self.now, self.accuracy = describe_heat(heat), ""
        self.progress.update(self.task, now=f"{self.now}: warm-up")

    def step(self, step: int, steps: int, loss: float) -> None:
        """See `RaceObserver.step`."""
        self.progress.update(self.task, now=f"{self.now}: {step / steps:.0%}, loss {loss:.3f}{self.accuracy}")

    def point(self, point: Point) -> None:
        """See `RaceObserver.point`."""
        self.accuracy = f", {_right(point)}"

    def finished(self, heat: Heat, trial: Trial) -> None:
        """See `RaceObserver.finished`."""
        super().finished(heat, trial)
        each = (time.monotonic() - self.begun) / (self.done - self.before)
        remaining = f"{text.clock(each * (self.total - self.done))} left"
        self.progress.update(self.task, completed=self.done, remaining=remaining)


@contextmanager
def race_progress(progress: bool | RaceObserver) -> Iterator[RaceObserver]:
    """Who watches a race: a display on stderr, nobody, or who was given."""
    if not isinstance(progress, bool):
        yield progress
        return
    console = Console(stderr=True, highlight=False, quiet=not progress)
    if not console.is_terminal:
        yield RaceLog(console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[now]}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remaining]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield RaceLive(console, bar)
