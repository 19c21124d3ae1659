"""What a training looks like while it runs: live in a terminal, plain lines elsewhere."""

import time
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from flopbench.report import text
from flopbench.results.trainings import Point, TrainingInfo
from flopbench.training.session import Watch

# Seconds from one line about steps to the next.
_LINE_SECONDS = 60.0

# Seconds of training that the rate is the mean of.
_RATE_SECONDS = 10.0


class LogWatch(Watch):
    """A line per evaluation, and one a minute, without control codes: for files, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps = self.batch = self.per_epoch = 1
        self.right = ""
        self._line = 0.0
        self._times: list[tuple[float, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, info: TrainingInfo, path: Path, step: int) -> None:
        """See `Watch.begin`."""
        recipe = info.recipe
        self.steps, self.batch = info.steps, recipe.batch_size
        self.per_epoch = info.steps / recipe.epochs
        processes = f", {info.world_size} processes" if info.world_size > 1 else ""
        self._print(
            f"{info.label} by {recipe.name} on {text.exact(info.data.images)} images of {info.data.name}: "
            f"{recipe.epochs:g} epoch{'s' * (recipe.epochs != 1)}, "
            f"{text.exact(info.steps)} steps of {recipe.batch_size} images, "
            f"{info.environment.device_name}{processes}, {recipe.dtype}, {recipe.mode}"
        )
        if step == info.steps:
            self._print(f"finished already, after {text.exact(step)} steps: nothing is left to do in {path}")
        elif step:
            self._print(f"goes on after step {text.exact(step)}, in {path}")
        else:
            self._print(f"in {path}")
        self._began()

    def step(self, step: int, loss: float, rate: float) -> None:
        """See `Watch.step`."""
        now = time.monotonic()
        self._times.append((now, step))
        while len(self._times) > 2 and now - self._times[0][0] > _RATE_SECONDS:
            del self._times[0]
        self._stepped(step, loss, rate)

    def _stepped(self, step: int, loss: float, rate: float) -> None:
        now = time.monotonic()
        if now - self._line >= _LINE_SECONDS:
            self._line = now
            self._print(", ".join(self._words(step, loss, rate)))

    def evaluating(self) -> None:
        """See `Watch.evaluating`; what comes after it is not compared with what was before."""
        self._times.clear()

    def point(self, point: Point) -> None:
        """See `Watch.point`."""
        measure, figure = point.best.plain.measure, text.percent(point.best.plain.figure, 1)
        self.right = f"{measure} {figure}"
        loss = "" if point.loss is None else f", loss {point.loss:.4f}"
        averaged = f" (averaged weights {figure})" if point.ema else ""
        rate = "" if point.rate is None else f", {text.significant(point.rate)} images/s"
        self._print(
            f"step {text.exact(point.step)} of {text.exact(self.steps)}{loss}, "
            f"{measure} {text.percent(point.accuracy.plain.figure, 1)}{averaged}, "
            f"{text.clock(point.seconds)} of training{rate}"
        )
        self._line = time.monotonic()

    def _began(self) -> None:
        self._line = time.monotonic()

    def _words(self, step: int, loss: float, rate: float) -> list[str]:
        """Where it is: step, epoch, loss, learning rate, images per second, accuracy, the time left."""
        words = [
            f"step {step}/{self.steps}",
            f"epoch {step / self.per_epoch:.2f}",
            f"loss {loss:.4f}",
            f"rate {rate:.2e}",
        ]
        (begin, first), (end, last) = self._times[0], self._times[-1]
        if end > begin:
            per_second = (last - first) / (end - begin)
            words.append(f"{text.significant(per_second * self.batch)} images/s")
            words += [self.right] if self.right else []
            words.append(f"{text.clock((self.steps - step) / per_second)} left")
        return words

    def _print(self, line: str) -> None:
        self.console.print(Text(text.printable(line)), soft_wrap=True)


class LiveWatch(LogWatch):
    """A live bar under the lines of the evaluations."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[now]}", markup=False),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task("", total=None, now="starting")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def evaluating(self) -> None:
        """See `Watch.evaluating`."""
        super().evaluating()
        self.progress.update(self.task, now="evaluating")

    def _began(self) -> None:
        self.progress.update(self.task, total=self.steps, now="preparing, compiling")

    def _stepped(self, step: int, loss: float, rate: float) -> None:
        self.progress.update(self.task, completed=step, now=", ".join(self._words(step, loss, rate)))


def watch_for(console: Console) -> LogWatch:
    """What suits where a console writes to."""
    return LiveWatch(console) if console.is_terminal else LogWatch(console)
