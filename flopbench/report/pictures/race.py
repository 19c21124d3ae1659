"""Races: accuracy against what training spends, how far apart the entrants end, and which of them pay."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from flopbench.report import text
from flopbench.report.labels import version_of
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    LOOKS,
    MUTED,
    Look,
    columns,
    label_grid,
    name_of,
    named_rows,
    panels,
    told,
    version_look,
    wrapped,
)
from flopbench.report.race_outcome import CALLED, Comparison, Outcome
from flopbench.report.race_standings import Standing
from flopbench.report.trajectories import Axis, spent
from flopbench.results.trainings import Role
from flopbench.symmetries.registry import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flopbench.report.pictures.figure import Figure


@dataclass(frozen=True)
class Spending:
    """What accuracy is drawn against: its picture's name and title, and how the axis is labelled.

    `units` are those that the axis may be in, the largest first: how much one is, and what it is called.
    `write` says how much was spent.
    """

    axis: Axis
    name: str
    title: str
    label: str
    units: tuple[tuple[float, str], ...]
    write: Callable[[float], str]

    def unit(self, most: float) -> tuple[float, str]:
        """The largest unit of which there are two or more, and the label of the axis in it."""
        size, name = next((unit for unit in self.units if most >= 2 * unit[0]), self.units[-1])
        return size, f"{self.label} ({name})" if name else self.label


SPENDINGS = (
    Spending(
        "seconds",
        "accuracy-against-time",
        "Accuracy against the time of training",
        "measured time of training",
        ((3600.0, "h"), (60.0, "min"), (1.0, "s")),
        text.seconds,
    ),
    Spending(
        "macs",
        "accuracy-against-macs",
        "Accuracy against the arithmetic of training",
        "MACs of training",
        ((1e18, "10¹⁸"), (1e15, "10¹⁵"), (1e12, "10¹²"), (1e9, "10⁹"), (1e6, "10⁶")),
        lambda macs: f"{text.count(macs)} MACs",
    ),
    Spending(
        "step",
        "accuracy-against-steps",
        "Accuracy against the steps of training",
        "steps of training",
        ((1e6, "10⁶"), (1e3, "10³"), (1.0, "")),
        lambda steps: f"{text.count(steps)} steps",
    ),
)

_LINE, _SEED = 2.0, 0.8
"""How wide the line of the mean is, and that of a single seed."""


def of_races(outcomes: Sequence[Outcome], device_name: str, suffix: str = "") -> Iterator[Drawing | None]:
    """Every picture of the races of one run, each answering one question."""
    drawn = [outcome for outcome in outcomes if any(one.trials for one in outcome.standings.values())]
    if not drawn:
        return
    device = text.printable(device_name)
    yield differences(drawn, device, suffix)
    for spending in SPENDINGS:
        yield trajectories(drawn, spending, device, suffix)
    yield frontier(drawn, device, suffix)


def trajectories(outcomes: Sequence[Outcome], spending: Spending, device: str, suffix: str) -> Drawing | None:
    """Accuracy against what is spent, a panel per race: seeds thin, their mean bold, the target a line."""
    outcomes = [outcome for outcome in outcomes if _most(outcome, spending.axis)]
    if not outcomes:
        return None
    figure, axes = panels(len(outcomes), columns=_sets(outcomes), size=(3.3, 2.7))
    for axis, outcome in zip(axes, outcomes, strict=True):
        looks, (unit, label) = looks_of(outcome), spending.unit(_most(outcome, spending.axis))
        for role, standing in outcome.standings.items():
            _draw_seeds(axis, standing, spending.axis, unit, looks[role])
        _draw_target(axis, outcome, spending.axis, unit, looks)
        axis.set_title(_title(outcome))
        axis.set_xlim(left=0)
        axis.set_ylim(*_reach(outcome))
        axis.set_xlabel(label)
    label_grid(axes, [f"{outcome.measure} (%)" for outcome in outcomes])
    _legend(figure, outcomes)
    caption = ["Bold, the mean over the seeds; thin, each seed."]
    if any(outcome.target is not None for outcome in outcomes):
        caption.append(
            "Dashed, the target, marked where the mean of an entrant reaches it of which all seeds do."
        )
    caption.append("Each vertical axis begins where the entrants can be told apart.")
    if spending.axis == "seconds":
        caption.append("Evaluations and compilation are outside of the time.")
    return Drawing(
        f"{spending.name}{suffix}",
        f"{spending.title}, {device}",
        " ".join(caption),
        f"{_measured(outcomes)} of every entrant against {spending.label}, a panel per race. "
        + told(_said(outcome, standing, spending) for outcome, standing in _standings(outcomes)),
        figure,
    )


def differences(outcomes: Sequence[Outcome], device: str, suffix: str) -> Drawing | None:
    """Differences of accuracy with their intervals, a panel per race and a row per comparison."""
    found = list(dict.fromkeys(_row(one) for outcome in outcomes for one in outcome.comparisons))
    if not found:
        return None
    compared = [outcome for outcome in outcomes if outcome.comparisons]
    names = [wrapped(_compared(outcomes, row), 26) for row in found]
    lines = max(name.count("\n") + 1 for name in names)
    height = 0.9 + (0.1 + 0.15 * lines) * len(found)
    figure, axes = panels(len(compared), columns=_sets(compared), size=(3.3, height))
    for axis, outcome in zip(axes, compared, strict=True):
        looks = looks_of(outcome)
        named_rows(axis, [""] * len(found))
        if axis.get_subplotspec().is_first_col():
            axis.set_yticks(range(len(found)), names)
        axis.axvline(0, color=MUTED, linewidth=0.9)
        for one in outcome.comparisons:
            place, points = found.index(_row(one)), one.points
            sure = one.verdict in ("better", "worse")
            axis.errorbar(
                [points.value],
                [place],
                xerr=None
                if points.low is None or points.high is None
                else [[points.value - points.low], [points.high - points.value]],
                color=looks[one.one.key].color,
                marker=looks[one.one.key].marker,
                markerfacecolor=looks[one.one.key].color if sure else "white",
            )
        axis.set_title(_title(outcome))
        axis.margins(x=0.1)
        axis.set_xlabel(f"percentage points of {outcome.measure}")
    return Drawing(
        f"accuracy-differences{suffix}",
        f"How far apart the accuracies are, {device}",
        "To the right of the line at 0 the network that is named first is more accurate. Bars are 95 % "
        "intervals over the seeds; a hollow marker is a difference that they do not tell from none."
        + " One seed has no interval."
        * any(one.points.low is None for each in compared for one in each.comparisons),
        f"Differences of {_measures(compared)} in percentage points, a panel per race. "
        + told(
            f"{outcome.title}, {_compared([outcome], _row(one))}: {text.points(one.points.value / 100)}"
            for outcome in compared
            for one in outcome.comparisons
        ),
        figure,
    )


def frontier(outcomes: Sequence[Outcome], device: str, suffix: str) -> Drawing | None:
    """Final accuracy against the time that the whole training takes, a panel per race."""
    timed = [outcome for outcome in outcomes if _most(outcome, "seconds")]
    if not timed:
        return None
    figure, axes = panels(len(timed), columns=_sets(timed), size=(3.3, 2.7))
    for axis, outcome in zip(axes, timed, strict=True):
        unit, label = SPENDINGS[0].unit(_most(outcome, "seconds"))
        _draw_ends(axis, outcome, unit)
        axis.set_title(_title(outcome))
        axis.set_xlabel(label)
        axis.set_xlim(0, 1.08 * _most(outcome, "seconds") / unit)
        axis.margins(y=0.12)
    label_grid(axes, [f"{outcome.measure} at the end (%)" for outcome in timed])
    _legend(figure, timed)
    return Drawing(
        f"accuracy-frontier{suffix}",
        f"Accuracy at the end against the time of the whole training, {device}",
        "Large, the mean over the seeds; small, each seed. The dotted line joins those than which none "
        "is both more accurate and sooner done. Up and to the left is better.",
        f"{_measured(timed)} at the end of training against its measured time, a panel per race. "
        + told(
            f"{outcome.title}, {outcome.called(standing.entrant)}: {text.percent(fmean(ends), 1)} after "
            f"{text.seconds(fmean(standing.at_end('seconds')))}"
            for outcome, standing in _standings(timed)
            if (ends := standing.figures)
        ),
        figure,
    )


def looks_of(outcome: Outcome) -> dict[Role, Look]:
    """X and E(X) look as they do in every picture; the rivals have colours that neither has."""
    candidate = outcome.race.entrant("candidate")
    own = version_look(version_of(candidate.label)) if candidate else LOOKS[1]
    if candidate and version_of(candidate.label) == BASELINE:
        # Somebody's own network.
        own = LOOKS[1]
    rest = [look for look in (*LOOKS[2:], LOOKS[0]) if look.color != own.color]
    rivals: tuple[Role, ...] = ("wide", "mirror", "half-width", "half-depth")
    return {"baseline": version_look(BASELINE), "candidate": own, **dict(zip(rivals, rest, strict=False))}


def _standings(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, Standing]]:
    return ((outcome, one) for outcome in outcomes for one in outcome.standings.values() if one.trials)


def _measures(outcomes: Sequence[Outcome]) -> str:
    """What is drawn: `top-1 accuracy`, `mIoU`, or both."""
    return text.joined([*dict.fromkeys(outcome.measure.full for outcome in outcomes)])


def _measured(outcomes: Sequence[Outcome]) -> str:
    """The same at the beginning of a sentence: names as they are, words with a capital."""
    found = _measures(outcomes)
    return found if any(letter.isupper() for letter in found.split()[0]) else f"{found[0].upper()}{found[1:]}"


def _title(outcome: Outcome) -> str:
    """The plain network and the data, which is what a race is told by."""
    baseline = outcome.race.entrant("baseline")
    names = baseline.label if baseline else outcome.race.declared.pair, outcome.race.data.name
    return "\n".join(map(name_of, names))


def _sets(outcomes: Sequence[Outcome]) -> int:
    """Columns of panels: one per data set where every network races on each of two or three, else three."""
    sets = [*dict.fromkeys(outcome.race.data.name for outcome in outcomes)]
    rows = [sets] * (len(outcomes) // len(sets))
    whole = [name for row in rows for name in row] == [outcome.race.data.name for outcome in outcomes]
    return len(sets) if whole and 1 < len(sets) < 4 else 3


def _most(outcome: Outcome, axis: Axis) -> float:
    """The most that any training of a race has spent; 0 where none says."""
    return max((value for one in outcome.standings.values() for value in one.at_end(axis)), default=0.0)


def _name(outcomes: Sequence[Outcome], role: Role) -> str:
    """What an entrant is called: by its label where that is the same in all races, else by X and E(X)."""
    names = {outcome.called(role) for outcome in outcomes if outcome.race.entrant(role)}
    return names.pop() if len(names) == 1 else _short_name(outcomes, role)


def _short_name(outcomes: Sequence[Outcome], role: Role) -> str:
    """What an entrant is called by X and E(X), or D8(X); somebody's own network by its label."""
    candidates = [one for outcome in outcomes if (one := outcome.race.entrant("candidate"))]
    versions = {version_of(candidate.label) for candidate in candidates}
    if versions == {BASELINE}:
        return outcomes[0].called(role)
    return CALLED[role].format(x="X", e=versions.pop().label("X") if len(versions) == 1 else "E(X)")


def _percent(standing: Standing, seed: int) -> list[float]:
    return [100 * point.best.plain.figure for point in standing.trials[seed].points]


def _draw_seeds(axis: "Axes", standing: Standing, along: Axis, unit: float, own: Look) -> None:
    lines = []
    for seed, trial in standing.trials.items():
        spending = [value / unit for point in trial.points if (value := spent(point, along)) is not None]
        if len(spending) == len(trial.points):
            lines.append((spending, _percent(standing, seed)))
    for line in lines:
        axis.plot(*line, color=own.color, linewidth=_SEED, alpha=0.35)
    if lines:
        # Of one recipe: every seed is evaluated at the same steps.
        mean = [[fmean(values) for values in zip(*parts, strict=False)] for parts in zip(*lines, strict=True)]
        axis.plot(*mean, **{**own.line, "marker": ""}, linewidth=_LINE)


def _draw_target(axis: "Axes", outcome: Outcome, along: Axis, unit: float, looks: dict[Role, Look]) -> None:
    """The target, and where the mean of the entrants reaches it of which every seed does."""
    if outcome.target is None:
        return
    target = 100 * outcome.target
    axis.axhline(target, color=MUTED, linestyle=(0, (3, 2)), linewidth=1.1)
    for role, standing in outcome.standings.items():
        there = [value for value in standing.to_target(along).values() if value is not None]
        if there and len(there) == len(standing.trials):
            own = looks[role]
            axis.plot(
                [fmean(there) / unit],
                [target],
                color=own.color,
                marker=own.marker,
                markersize=7.5,
                markeredgecolor="white",
                zorder=4,
            )


def _reach(outcome: Outcome) -> tuple[float, float]:
    """From where to where the accuracies are drawn: the first evaluations may be far below the last."""
    ends = [100 * figure for standing in outcome.standings.values() for figure in standing.figures]
    ends += [100 * outcome.target] if outcome.target is not None else []
    lowest = min(
        share for one in outcome.standings.values() for seed in one.trials for share in _percent(one, seed)
    )
    room = max(max(ends) - min(ends), 2.0)
    return max(lowest - 0.1 * room, min(ends) - 1.5 * room), max(ends) + 0.25 * room


def _draw_ends(axis: "Axes", outcome: Outcome, unit: float) -> None:
    looks = looks_of(outcome)
    means: list[tuple[float, float]] = []
    for role, standing in outcome.standings.items():
        ends = [100 * figure for figure in standing.figures]
        seconds = [value / unit for value in standing.at_end("seconds")]
        if not ends:
            continue
        own: dict[str, Any] = {"color": looks[role].color, "marker": looks[role].marker, "linestyle": "none"}
        axis.plot(seconds, ends, **own, markersize=3.5, alpha=0.45)
        axis.plot([fmean(seconds)], [fmean(ends)], **own, markersize=8)
        means.append((fmean(seconds), fmean(ends)))
    best = [
        (at, top)
        for at, top in sorted(means)
        if not any(other <= at and above >= top and (other, above) != (at, top) for other, above in means)
    ]
    axis.plot(*zip(*best, strict=True), color=MUTED, linestyle=(0, (1, 2)), linewidth=1.2, zorder=1)


def _legend(figure: "Figure", outcomes: Sequence[Outcome]) -> None:
    """Who looks how, in all panels."""
    from matplotlib.lines import Line2D

    looks = looks_of(outcomes[0])
    run = {role for outcome, standing in _standings(outcomes) for role in [standing.entrant.key]}
    handles = [
        Line2D([], [], label=wrapped(text.shortened(_name(outcomes, role), 40), 20), **own.line)
        for role, own in looks.items()
        if role in run
    ]
    rows = -(-len(handles) // max(1, int(figure.get_figwidth() / 1.9)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns(-(-len(handles) // rows)))


def _row(one: Comparison) -> tuple[Role, Role, str, bool]:
    """What two comparisons of different races have in common if they are in one row."""
    return one.one.key, one.other.key, one.equal, one.averaged


def _compared(outcomes: Sequence[Outcome], row: tuple[Role, Role, str, bool]) -> str:
    one, other, equal, averaged = row
    names = [text.shortened(_short_name(outcomes, role)) for role in (one, other)]
    augmented, cost = (" + TTA", " and twice the cost") if averaged else ("", "")
    return f"{' − '.join(names)}{augmented}\nat equal {equal}{cost}"


def _said(outcome: Outcome, standing: Standing, spending: Spending) -> str:
    """Where an entrant ended, and when it was at the target."""
    end = text.percent(fmean(standing.figures), 1)
    words = f"{outcome.title}, {outcome.called(standing.entrant)}: {end} at the end"
    there = [value for value in standing.to_target(spending.axis).values() if value is not None]
    if outcome.target is None:
        return words
    if len(there) < len(standing.trials):
        return f"{words}, target not met"
    return f"{words}, at the target after {spending.write(fmean(there))}"
