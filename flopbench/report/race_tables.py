"""The tables of races: who ended where, who was at the target when, and how far apart that is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, stdev
from typing import Any, Generic, TypeVar

from flopbench.report import text
from flopbench.report.race_outcome import Comparison, Outcome
from flopbench.report.race_standings import Standing, Use
from flopbench.report.table import Column, Table, Tone, words
from flopbench.report.trajectories import Axis, Estimate
from flopbench.results.measures import MEASURES, TOP1, Measure
from flopbench.results.trainings import Accuracy, Entrant, Trial

_TONES: dict[str, Tone] = {"better": "good", "worse": "bad"}


def race_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """The tables of races that have a row, the summary first."""
    several = len(outcomes) > 1
    tables = (
        Table("Races", _RACE_COLUMNS, outcomes),
        Table("Entrants", _STANDING_COLUMNS, _standings(outcomes), _RACE if several else None),
        Table("Time to the target", _PACE_COLUMNS, [one for one in outcomes if one.pace]),
        Table("Accuracies compared", _COMPARISON_COLUMNS, _comparisons(outcomes), _RACE if several else None),
        Table(
            "Accuracy against the time to answer", _USE_COLUMNS, _uses(outcomes), _RACE if several else None
        ),
        Table("Trials", _TRIAL_COLUMNS, _trials(outcomes), _RACE if several else None),
    )
    return [table for table in tables if table.rows]


What = TypeVar("What")


@dataclass(frozen=True)
class _Of(Generic[What]):
    """A row, with the race that it is of."""

    outcome: Outcome
    what: What

    @property
    def race(self) -> str:
        return self.outcome.title


def _standings(outcomes: Iterable[Outcome]) -> list[_Of[Standing]]:
    return [_Of(outcome, standing) for outcome in outcomes for standing in outcome.standings.values()]


def _comparisons(outcomes: Iterable[Outcome]) -> list[_Of[Comparison]]:
    return [_Of(outcome, comparison) for outcome in outcomes for comparison in outcome.comparisons]


def _uses(outcomes: Iterable[Outcome]) -> list[_Of[Use]]:
    """What was raced before inference was timed is left out."""
    return [_Of(outcome, use) for outcome in outcomes for use in outcome.uses if use.rate]


def _trials(outcomes: Iterable[Outcome]) -> list[_Of[Trial]]:
    return [_Of(outcome, trial) for outcome in outcomes for trial in outcome.trials]


_RACE = words("race")


_share = partial(text.percent, decimals=1)


def _by_measure(
    header: str, value: Callable[[Any], Any], write: Callable[[Any], str] = _share, *, rank: int = 1
) -> tuple[Column, ...]:
    """A column per measure, `{}` in its header, with the values of those rows whose race it decides."""

    def of(measure: Measure) -> Column:
        return Column(
            header.format(measure),
            lambda row: value(row) if row.outcome.measure == measure else None,
            write,
            rank=rank,
        )

    return tuple(map(of, MEASURES.values()))


def _pixels_right(accuracy: Accuracy) -> float | None:
    """The share of pixels that are right, where that is not what decides."""
    return None if accuracy.plain.measure == TOP1 else accuracy.plain.top1


def _mean(values: Iterable[float]) -> float | None:
    """The mean over the seeds, None of no seed."""
    known = [*values]
    return fmean(known) if known else None


def _of_ends(figure: Callable[[Accuracy], float | None]) -> Callable[[_Of[Standing]], float | None]:
    return lambda row: _mean(row.what.of_ends(figure))


def _spread(row: _Of[Standing]) -> tuple[float, float | None] | None:
    """The final accuracy: its mean over the seeds and their standard deviation."""
    ends = row.what.figures
    return (fmean(ends), stdev(ends) if len(ends) > 1 else None) if ends else None


def time_to_target(standing: Standing) -> str | None:
    """`114 s`, the mean over the seeds; `not met`, or by how many of them; None of no target or seed."""
    times = standing.to_target()
    met = [time for time in times.values() if time is not None]
    if not times:
        return None
    if len(met) == len(times):
        return text.duration(fmean(met))
    return f"met by {len(met)} of {len(times)}" if met else "not met"


def _target(outcome: Outcome) -> str | None:
    if outcome.target is None:
        return None
    # What every race was decided by once goes without saying.
    measure = "" if outcome.measure == TOP1 else f" {outcome.measure}"
    return f"{_share(outcome.target)}{measure}{'' if outcome.declared else ' (after the fact)'}"


def _left_out(outcome: Outcome) -> str:
    """`12 (10 duplicate, 2 unreadable)`."""
    left_out = outcome.race.data.left_out
    why = ", ".join(f"{images} {reason}" for reason, images in left_out.items())
    return f"{sum(left_out.values())} ({why})" if left_out else ""


_RACE_COLUMNS = (
    words("race", "title"),
    Column("images to\ntrain on", lambda outcome: outcome.race.data.images, text.exact),
    Column("to validate\nwith", lambda outcome: outcome.race.validation.images, text.exact),
    Column("classes", lambda outcome: outcome.race.data.classes, text.exact),
    words("left out", _left_out, rank=6, wraps=True),
    Column(
        "antisymmetric\nshare",
        lambda outcome: outcome.race.data.mirror_asymmetry,
        _share,
        rank=2,
    ),
    words(
        "labels depend\non orientation",
        lambda outcome: {True: "yes", False: "no", None: None}[outcome.race.data.oriented],
        rank=2,
    ),
    words("recipe", lambda outcome: outcome.race.recipe.name, rank=3),
    Column("epochs", lambda outcome: outcome.race.recipe.epochs, lambda epochs: f"{epochs:g}", rank=3),
    Column("batch", lambda outcome: outcome.race.recipe.batch_size, text.exact, rank=3),
    words("dtype", lambda outcome: outcome.race.recipe.dtype, rank=4),
    words("mode", lambda outcome: outcome.race.recipe.mode, rank=4),
    Column("trials", lambda outcome: f"{len(outcome.trials)} of {outcome.planned}", rank=5),
)

_STANDING_COLUMNS = (
    words("entrant", lambda row: row.outcome.called(row.what.entrant)),
    words("network", lambda row: row.what.entrant.name, rank=7),
    Column("linear\nparameters", lambda row: row.what.entrant.linear_parameters, text.count, rank=3),
    Column("MACs\nper image", lambda row: row.what.entrant.macs, text.count, rank=3),
    Column("images/s\nin training", lambda row: _mean(row.what.rates), text.significant, rank=2),
    Column("training\ntime", lambda row: _mean(row.what.at_end("seconds")), text.duration, rank=2),
    Column("training\nenergy [J]", lambda row: _mean(row.what.at_end("joules")), text.significant, rank=6),
    *_by_measure("{}\n± deviation", _spread, lambda found: text.with_spread(*found)),
    *_by_measure("{},\nmirrored", _of_ends(lambda accuracy: accuracy.mirrored.figure), rank=4),
    Column(
        "the same\nmirrored",
        _of_ends(lambda accuracy: accuracy.flip_consistency),
        text.coverage,
        rank=4,
    ),
    *_by_measure(
        "{}\nwith TTA", _of_ends(lambda accuracy: accuracy.averaged and accuracy.averaged.figure), rank=4
    ),
    Column("pixels\nright", _of_ends(_pixels_right), _share, rank=5),
    Column("NLL", _of_ends(lambda accuracy: accuracy.plain.nll), text.significant, rank=5),
    Column("time to\nthe target", lambda row: time_to_target(row.what), rank=1),
    Column("seeds", lambda row: f"{len(row.what.trials)} of {row.outcome.race.declared.seeds}", rank=1),
    words("what its operations ran as", lambda row: row.what.kernels, rank=7, wraps=True),
)


def _seconds_of(role: str) -> Callable[[Outcome], str | None]:
    return lambda outcome: outcome.pace and time_to_target(getattr(outcome.pace, role))


def _ends(estimate: Estimate | None) -> tuple[float, float | None, float | None] | None:
    return estimate and (estimate.value, estimate.low, estimate.high)


def _ratio(header: str, axis: Axis, rank: int) -> Column:
    return Column(
        header,
        lambda outcome: outcome.pace and _ends(outcome.pace.ratios.get(axis)),
        lambda ends: text.interval(*ends),
        rank=rank,
    )


def _tone(verdict: str) -> Tone:
    return _TONES.get(verdict, "unsure")


_PACE_COLUMNS = (
    words("race", "title"),
    Column("target", _target),
    Column("time of\nthe baseline", _seconds_of("baseline")),
    Column("time of\nthe candidate", _seconds_of("candidate")),
    _ratio("time ratio\n[95 % interval]", "seconds", 1),
    words(
        "the candidate\nis",
        lambda outcome: outcome.pace.verdict,
        rank=1,
        tone=lambda row: _tone(row.pace.verdict),
    ),
    Column(
        "of which: images/s\n[95 % interval]",
        lambda outcome: _ends(outcome.pace.speed),
        lambda ends: text.interval(*ends),
        rank=2,
    ),
    _ratio("images needed\n[95 % interval]", "samples", 2),
    _ratio("MACs ratio\n[95 % interval]", "macs", 3),
    _ratio("energy ratio\n[95 % interval]", "joules", 3),
)


def called(outcome: Outcome, entrant: Entrant, *, averaged: bool) -> str:
    """What an entrant is called, `averaged` by mirror test-time augmentation."""
    return outcome.called(entrant) + " + TTA" * averaged


def _budget(comparison: Comparison) -> str | None:
    if comparison.budget is None:
        return None
    return (
        text.duration(comparison.budget) if comparison.equal == "seconds" else text.count(comparison.budget)
    )


def _cut(row: _Of[Comparison]) -> str:
    if row.what.cut is None:
        return ""
    entrant, share = row.what.cut
    return f"{row.outcome.called(entrant)} is cut at {text.percent(share)} of its schedule"


_COMPARISON_COLUMNS = (
    words("entrant", lambda row: row.outcome.called(row.what.one)),
    words("against", lambda row: called(row.outcome, row.what.other, averaged=row.what.averaged)),
    words("at equal", lambda row: row.what.equal),
    *_by_measure("{}", lambda row: row.what.figures[0], rank=2),
    *_by_measure("{} of\nthe other", lambda row: row.what.figures[1], rank=2),
    Column(
        "difference in points\n[95 % interval]",
        lambda row: _ends(row.what.points),
        lambda ends: text.difference(*ends),
        tone=lambda row: _tone(row.what.verdict),
    ),
    words("it is", lambda row: row.what.verdict, rank=1, tone=lambda row: _tone(row.what.verdict)),
    Column("seeds", lambda row: row.what.points.seeds, text.exact, rank=3),
    Column("the other's\nMACs per image", lambda row: row.what.cost, text.times, rank=3),
    Column(
        "its time to answer\n[95 % interval]",
        lambda row: _ends(row.what.time),
        lambda ends: text.interval(*ends),
        rank=3,
    ),
    Column("spent", lambda row: _budget(row.what), rank=4),
    words("schedule", _cut, rank=4, wraps=True),
)


def _of_use(
    header: str, figure: Callable[[Use], Estimate | None], write: Callable[[float], str], rank: int = 2
) -> Column:
    """A figure with its interval over the seeds."""
    return Column(
        f"{header}\n[95 % interval]",
        lambda row: _ends(figure(row.what)),
        lambda ends: text.between(*ends, write=write),
        rank=rank,
    )


_USE_COLUMNS = (
    words(
        "who answers", lambda row: called(row.outcome, row.what.standing.entrant, averaged=row.what.averaged)
    ),
    *_by_measure(
        "{}\n[95 % interval]", lambda row: _ends(row.what.figure), lambda ends: text.percent_interval(*ends)
    ),
    _of_use("images/s\nanswering", lambda use: use.rate, text.significant),
    Column("MACs per image\nanswering", lambda row: row.what.macs, text.count, rank=2),
    _of_use("training\ntime", lambda use: use.seconds, text.duration),
    _of_use("images/s\nin training", lambda use: use.training_rate, text.significant, rank=3),
    Column("seeds", lambda row: row.what.figure.seeds, text.exact, rank=3),
)


def _last(figure: Callable[[Accuracy], float | None]) -> Callable[[_Of[Trial]], float | None]:
    return lambda row: figure(row.what.points[-1].best) if row.what.points else None


def _end(axis: Axis) -> Callable[[_Of[Trial]], float | None]:
    return lambda row: getattr(row.what.points[-1], axis) if row.what.points else None


def _rate(row: _Of[Trial]) -> float | None:
    end = row.what.points[-1] if row.what.points else None
    return end.samples / end.seconds if end and end.seconds > 0 else None


def _reached(row: _Of[Trial]) -> str | None:
    standing = row.outcome.standings.get(row.what.entrant)
    times = standing.to_target() if standing else {}
    if row.what.seed not in times:
        return None
    time = times[row.what.seed]
    return "not met" if time is None else text.duration(time)


_TRIAL_COLUMNS = (
    words("entrant", lambda row: row.outcome.called(row.what.entrant)),
    Column("seed", lambda row: row.what.seed, text.exact, rank=0),
    Column("place", lambda row: row.what.place + 1, text.exact, rank=3),
    words("status", lambda row: row.what.status, rank=1),
    words("reason", lambda row: row.what.reason, rank=7, wraps=True),
    Column("steps", _end("step"), text.exact, rank=3),
    Column("training\ntime", _end("seconds"), text.duration, rank=2),
    Column("images/s", _rate, text.significant, rank=2),
    Column("energy [J]", _end("joules"), text.significant, rank=5),
    Column("MACs", _end("macs"), text.count, rank=5),
    *_by_measure("{}", _last(lambda accuracy: accuracy.plain.figure)),
    *_by_measure("{},\nmirrored", _last(lambda accuracy: accuracy.mirrored.figure), rank=4),
    Column("NLL", _last(lambda accuracy: accuracy.plain.nll), text.significant, rank=4),
    Column("time to\nthe target", _reached, rank=1),
    Column("compiling", lambda row: row.what.compile_seconds, text.seconds, rank=6),
    Column("peak\nmemory", lambda row: row.what.peak_bytes, text.size, rank=6),
    words("flags", lambda row: ", ".join(dict.fromkeys(flag.kind for flag in row.what.flags)), rank=7),
)
