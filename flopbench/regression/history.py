"""A cell's figures over runs and commits, with the points at which they changed."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from flopbench.errors import FlopbenchError, NothingMeasuredError, unknown
from flopbench.regression.baseline import commit_of, git
from flopbench.regression.change_points import Level, levels
from flopbench.report import text
from flopbench.report.table import Column, Table, words
from flopbench.results import Run, to_frame, write_atomically
from flopbench.suites import fits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Figure → column of the frame of results, and whether more is worse.
METRICS: dict[str, tuple[str, bool]] = {
    "speedup": ("speedup", False),
    "throughput": ("candidate_throughput", False),
    "baseline_throughput": ("baseline_throughput", False),
    "peak_memory": ("candidate_peak_bytes", True),
    "macs": ("candidate_macs", True),
}
PANELS = 24
"""Cells that a picture holds; those with change points come first."""


@dataclass(frozen=True)
class Point:
    """One run's figure: the median over its replicates."""

    run: str
    created: datetime
    commit: str | None
    value: float

    @property
    def label(self) -> str:
        """Day and commit, e.g. `2026-11-23 1a2b3c4`."""
        return " ".join(filter(None, (f"{self.created:%Y-%m-%d}", (self.commit or "")[:7])))


@dataclass(frozen=True)
class Series:
    """One cell's figure on one machine, in the order of time, and its levels."""

    machine: str
    cell: str
    metric: str
    points: tuple[Point, ...]
    levels: tuple[Level, ...]

    @property
    def changes(self) -> list[tuple[Point, float, float, bool]]:
        """Each change: first point of the new level, value before, value after, whether it is worse."""
        more_is_worse = METRICS[self.metric][1]
        return [
            (self.points[new.start], old.value, new.value, (new.value > old.value) == more_is_worse)
            for old, new in zip(self.levels, self.levels[1:], strict=False)
        ]


Say = Callable[[str], None]


def find_runs(folders: Iterable[Path], say: Say = lambda line: None) -> list[Run]:
    """Every run in and below the folders, oldest first; `say` is told which are damaged and left out.

    Raises:
        FlopbenchError: a folder does not exist, or two of them hold the same run.
        NothingMeasuredError: there is no run that can be read.
    """
    runs: list[Run] = []
    known: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise FlopbenchError(f"{folder} is not a folder; give one that holds runs, such as results")
        for file in sorted(folder.rglob("run.json")):
            # A run that counts twice would look like two that agree.
            if file.resolve() in known:
                raise FlopbenchError(f"{file.parent} is in more than one of the folders; name it once")
            known.add(file.resolve())
            try:
                run = Run.open(file.parent)
                _created(run)
            except FlopbenchError as error:
                say(f"left out: {error}")
            else:
                runs.append(run)
    if not runs:
        raise NothingMeasuredError(f"no run that can be read in {', '.join(map(str, folders))}")
    return sorted(runs, key=_created)


def history(
    runs: Sequence[Run],
    *,
    metric: str = "speedup",
    cells: Sequence[str] = (),
    machine: str | None = None,
    since: datetime | None = None,
    min_change: float = 0.01,
    say: Say = lambda line: None,
) -> list[Series]:
    """The figures of each cell on each machine.

    Args:
        runs: in any order.
        metric: one of `METRICS`.
        cells: ids of cells or patterns of them (`vit_s16.flop/*`), all by default.
        machine: part of the machine's name, any by default.
        since: leave older runs out.
        min_change: smallest relative change that is marked.
        say: told which runs are damaged and left out.

    Raises:
        FlopbenchError: an unknown metric.
        NothingMeasuredError: nothing is left.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    values: dict[tuple[str, str], list[Point]] = {}
    for run in sorted(runs, key=_created):
        name = machine_of(run)
        if (since and _created(run) < since) or (machine and machine.lower() not in name.lower()):
            continue
        try:
            figures = _figures(run, metric)
        except FlopbenchError as error:
            say(f"left out: {error}")
            continue
        for cell, value in figures.items():
            if not cells or any(fits(cell, pattern) for pattern in cells):
                point = Point(run.info.id, _created(run), run.info.environment.commit, value)
                values.setdefault((name, cell), []).append(point)
    if not values:
        raise NothingMeasuredError(
            f"no run has a {metric.replace('_', ' ')} that fits --cell, --machine and --since"
        )
    return [
        Series(
            name, cell, metric, tuple(points), tuple(levels([p.value for p in points], min_change=min_change))
        )
        for (name, cell), points in sorted(values.items())
    ]


def parse_since(text: str) -> datetime:
    """A day (`2026-11-01`) or a commit's date (`git:v1.0`), in UTC.

    Raises:
        FlopbenchError: neither.
    """
    if text.startswith("git:"):
        text = git("show", "-s", "--format=%cI", commit_of(text.removeprefix("git:")), what="no date")
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise FlopbenchError(f"--since {text!r} is no day; write 2026-11-01 or git:REF") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def machine_of(run: Run) -> str:
    """What the figures of a run are comparable within: the device, and on a CPU its threads."""
    environment = run.info.environment
    if environment.device == "cuda":
        return environment.device_name
    return f"{environment.device_name}, {environment.threads} threads"


def table(series: Sequence[Series]) -> Table:
    """A row a cell and machine."""
    columns = (
        words("cell"),
        Column("runs", lambda one: len(one.points)),
        Column("first", lambda one: _written(one, one.points[0].value)),
        Column("last", lambda one: _written(one, one.points[-1].value)),
        words("changes", _changes, rank=2, wraps=True),
    )
    return Table("", columns, series, group=words("machine"))


def write(series: Sequence[Series], out: Path) -> list[Path]:
    """Write the table as Markdown and a picture a machine (PNG and SVG); return the files."""
    from flopbench.report.pictures.style import save, style

    metric = series[0].metric
    files = []
    page = f"# {metric.replace('_', ' ').capitalize()} over time\n\n"
    for number, machine in enumerate(sorted({one.machine for one in series}), 1):
        with style():
            contents = save(plot([one for one in series if one.machine == machine]))
        for kind, content in zip(("png", "svg"), contents, strict=True):
            files.append(out / f"history-{metric}-{number}.{kind}")
            write_atomically(files[-1], content)
        page += f"![{metric} on {text.markdown_escape(machine)}, a panel a cell]({files[-2].name})\n\n"
    files.append(out / f"history-{metric}.md")
    write_atomically(files[-1], page + table(series).markdown() + "\n")
    return files


def plot(series: Sequence[Series]) -> "Figure":
    """A panel a cell: the figures in the order of the runs, their levels and change points."""
    from flopbench.report.pictures.style import panels

    chosen = sorted(series, key=lambda one: not one.changes)[:PANELS]
    figure, grid = panels(len(chosen), size=(4.6, 2.6))
    for one, axes in zip(chosen, grid, strict=True):
        _panel(axes, one)
    left_out = len(series) - len(chosen)
    note = f" (and {left_out} cells without change points)" if left_out else ""
    figure.suptitle(f"{series[0].metric.replace('_', ' ')} on {series[0].machine}{note}", fontsize=11)
    return figure


_WORSE, _BETTER, _INK = "#c0392b", "#1e8449", "#2c3e50"


def _panel(axes: Any, one: Series) -> None:
    axes.plot(range(len(one.points)), [point.value for point in one.points], ".", color=_INK, markersize=5)
    for level in one.levels:
        axes.hlines(level.value, level.start - 0.4, level.end - 0.6, color=_INK, linewidth=1.5, alpha=0.6)
    for level, (point, _, _, worse) in zip(one.levels[1:], one.changes, strict=True):
        color = _WORSE if worse else _BETTER
        axes.axvline(level.start - 0.5, color=color, linewidth=1)
        axes.annotate(
            f"{'worse' if worse else 'better'} {point.label}",
            (level.start - 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -2),
            textcoords="offset points",
            va="top",
            fontsize=6,
            color=color,
        )
    step = max(1, len(one.points) // 4)
    ticks = range(0, len(one.points), step)
    axes.set_xticks(ticks, [one.points[tick].label.replace(" ", "\n") for tick in ticks], fontsize=6)
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.25)
    axes.set_title(one.cell, fontsize=7)


def _written(one: Series, value: float) -> str:
    return text.metric(one.metric.removeprefix("baseline_"), value)


def _changes(one: Series) -> str:
    changes = [
        f"{point.label}: {_written(one, before)} → {_written(one, after)} "
        f"({text.change(after / before - 1)}, {'worse' if worse else 'better'})"
        for point, before, after, worse in one.changes
    ]
    return "; ".join(changes) or "none"


def _created(run: Run) -> datetime:
    try:
        when = datetime.fromisoformat(run.info.created)
    except ValueError:
        raise FlopbenchError(f"{run.path / 'run.json'} is damaged: created is no date") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _figures(run: Run, metric: str) -> dict[str, float]:
    frame = to_frame([run])
    column = METRICS[metric][0]
    if frame.empty:
        return {}
    known = frame.loc[(frame["status"] == "ok") & frame[column].notna(), ["cell", column]]
    middle = {str(cell): float(median(group[column])) for cell, group in known.groupby("cell", sort=False)}
    # Changes are ratios, which zero (a network without products) and infinity have none of.
    return {cell: value for cell, value in middle.items() if math.isfinite(value) and value > 0}
