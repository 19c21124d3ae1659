"""The outcome of races in plain words. Every statement follows from the figures and their intervals."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from flopbench.report import text
from flopbench.report.findings import Answer
from flopbench.report.race_outcome import Comparison, Outcome
from flopbench.report.race_tables import called, time_to_target
from flopbench.report.trajectories import Estimate, Verdict
from flopbench.results.trainings import RacesInfo

# A network whose predictions for an image and its mirror image agree this often is invariant: rounding alone
# lets single predictions differ.
_INVARIANT = 0.99

_OF_HALF_THE_MACS = ("half-width", "half-depth")


def answers_of(info: RacesInfo, outcomes: Sequence[Outcome]) -> list[Answer]:
    """What a run of races says: of several all together first, then of each."""
    device = text.with_article(text.printable(info.environment.device_name))
    if len(outcomes) == 1:
        return [_answer(outcomes[0], f"On {device}, ")]
    return [_overall(info.id, device, outcomes), *(_answer(outcome, "") for outcome in outcomes)]


def _overall(run: str, device: str, outcomes: Sequence[Outcome]) -> Answer:
    """How often who is ahead, by how much, and where."""
    ends = [(outcome, end) for outcome in outcomes if (end := _end(outcome))]
    if not ends:
        return Answer(run, f"On {device}, no race has a seed that both networks ended with.", ())
    counts = Counter(end.verdict for _, end in ends)
    several = len({outcome.measure for outcome, _ in ends}) > 1
    said = [f"{words} in {counts[verdict]}" for verdict, words in _AHEAD.items() if counts[verdict]]
    return Answer(
        run,
        f"On {device}, of {text.counted(len(ends), 'race')} after the same steps by the same recipe, the "
        f"symmetric network {text.joined(said)}.",
        (
            *(
                _plain(f"{outcome.title}: {_in_short(end, f' of {outcome.measure}' * several)}.")
                for outcome, end in ends
            ),
            *map(_plain, _sooner(outcomes)),
        ),
    )


_AHEAD: dict[Verdict, str] = {
    "better": "is ahead of its baseline",
    "worse": "is behind it",
    "not told apart": "cannot be told apart from it",
    "one seed": "was compared with it by one seed alone",
}


def _in_short(end: Comparison, measure: str = "") -> str:
    """`+3.2 points (95 % interval +1.6 to +4.7), not told apart`; `measure` says what the points are of."""
    shown, ends = _split(text.difference(end.points.value, end.points.low, end.points.high))
    return (
        f"{shown} points{measure} ({f'95 % interval {ends}' if ends else 'one seed'}), {_SIDES[end.verdict]}"
    )


_SIDES: dict[Verdict, str] = {
    "better": "ahead",
    "worse": "behind",
    "not told apart": "not told apart",
    "one seed": "so without an interval",
}


def _sooner(outcomes: Sequence[Outcome]) -> list[str]:
    """By how much who is sooner at the target of all races, and where it is not met."""
    times = [
        (outcome.title, time)
        for outcome in outcomes
        if outcome.pace and (time := outcome.pace.ratios.get("seconds"))
    ]
    missed = [one.title for one in outcomes if one.pace and one.pace.verdict == "not met"]
    lines = [
        f"Time to the target of {title}: the baseline takes {_times(time)} as long." for title, time in times
    ]
    if missed:
        lines.append(f"The target is not met by every seed of both networks: {text.joined(missed)}.")
    return lines


def _answer(outcome: Outcome, where: str) -> Answer:
    """What one race says."""
    best = [*_where_labels_matter(outcome), *_to_target(outcome)]
    points = [
        *(_point(outcome, comparison) for comparison in _told(outcome)),
        *_about_cuts(outcome),
        *_mirrored(outcome),
        *_energy(outcome),
        *_unfinished(outcome),
    ]
    headline = _headline(outcome, where)
    return Answer(outcome.race.key, headline, tuple(map(_plain, points)), tuple(map(_plain, best)))


def _told(outcome: Outcome) -> list[Comparison]:
    """The comparisons that have a sentence of their own; the table has them all.

    Where X runs at E(X)'s MACs by a whole schedule, it is not spoken of as cut at them. What is spent by the
    wide network is spoken of where that changes who is ahead.
    """
    whole = any(one.other.key in _OF_HALF_THE_MACS for one in outcome.comparisons)
    wide = [one.verdict for one in outcome.comparisons if one.one.key == "wide" and one.budget is None]

    def says_something(one: Comparison) -> bool:
        if one.one.key == "wide" and one.budget is not None:
            return one.verdict not in wide
        return not (_is_end(one) or (whole and one.equal == "MACs" and one.budget is not None))

    return [one for one in outcome.comparisons if says_something(one)]


def _plain(sentence: str) -> str:
    return sentence.replace("\u00a0", " ").replace("\u202f", " ")


def _is_end(comparison: Comparison) -> bool:
    """Whether it is X against E(X) at the end of both, of which the headline speaks."""
    roles = (comparison.one.key, comparison.other.key, comparison.equal, comparison.averaged)
    return roles == ("candidate", "baseline", "steps", False)


def _end(outcome: Outcome) -> Comparison | None:
    return next(filter(_is_end, outcome.comparisons), None)


def _headline(outcome: Outcome, where: str) -> str:
    race = outcome.race
    data = (
        f"{where}{'on' if where else 'On'} {text.printable(race.data.name)} "
        f"({text.exact(race.validation.images)} images to validate with, recipe "
        f"{text.printable(race.recipe.name)})"
    )
    e, x = outcome.called("candidate"), outcome.called("baseline")
    end = _end(outcome)
    if end is None:
        return _plain(f"{data}, {e} and {x} have no seed yet that both ended with.")
    seeds = text.counted(end.points.seeds, "seed")
    return _plain(
        f"{data}, {_differs(e, x, end)}: {text.percent(end.figures[0], 1)} {outcome.measure} against "
        f"{text.percent(end.figures[1], 1)} after the same steps ({seeds})."
    )


def _differs(one: str, other: str, comparison: Comparison) -> str:
    """`E(X) is 3.2 points above X (95 % interval 1.6 to 4.7)`."""
    points = comparison.points
    if points.low is None or points.high is None:
        side = "above" if points.value >= 0 else "below"
        return (
            f"{one} is {_magnitude(points)} points {side} {other}, with one seed and so without an interval"
        )
    if comparison.verdict == "not told apart":
        shown, ends = _split(text.difference(points.value, points.low, points.high))
        return f"{one} and {other} cannot be told apart ({shown} points, 95 % interval {ends})"
    side = "above" if comparison.verdict == "better" else "below"
    return f"{one} is {_magnitude(points)} points {side} {other} (95 % interval {_ends(points)})"


def _magnitude(points: Estimate) -> str:
    return _split(text.difference(points.value, points.low, points.high))[0].lstrip("+−")


def _ends(points: Estimate) -> str:
    """`1.6 to 4.7`, the smaller first, of a difference whose interval has one sign."""
    _, ends = _split(text.difference(points.value, points.low, points.high))
    left, right = (end.lstrip("+−") for end in ends.split(" to "))
    return f"{left} to {right}" if points.value > 0 else f"{right} to {left}"


def _split(shown: str) -> tuple[str, str]:
    """`+3.2` and `+1.6 to +4.7` of `+3.2 [+1.6, +4.7]`."""
    estimate, _, ends = shown.replace("\u00a0", " ").partition(" [")
    return estimate, ends.rstrip("]").replace(", ", " to ")


def _where_labels_matter(outcome: Outcome) -> list[str]:
    """The negative control: where a mirrored image is none of its class, who decides alike has to lose."""
    end, candidate = _end(outcome), outcome.standings.get("candidate")
    if not outcome.race.data.oriented or end is None or candidate is None or end.verdict == "one seed":
        return []
    if fmean(candidate.of_ends(lambda accuracy: accuracy.flip_consistency)) < _INVARIANT:
        return []
    network = f"an {outcome.measure.task.promise} network"
    if end.verdict == "worse":
        return [
            f"{network[0].upper()}{network[1:]} loses here, as expected where labels depend on orientation."
        ]
    return [f"Labels depend on orientation, so {network} should lose; these figures do not show it."]


def _to_target(outcome: Outcome) -> list[str]:
    """How much sooner the target is reached, and whether by faster steps or by fewer."""
    pace, target = outcome.pace, outcome.target
    if pace is None or target is None:
        return []
    e, x = outcome.called("candidate"), outcome.called("baseline")
    chosen = (
        "as declared" if outcome.declared else f"what every seed of {x} ended with, chosen after the fact"
    )
    goal = f"{text.percent(target, 1)} {outcome.measure} ({chosen})"
    lines = []
    if time := pace.ratios.get("seconds"):
        said = {
            "better": f"{e} is sooner than {x} at",
            "worse": f"{e} is later than {x} at",
            "not told apart": f"{e} and {x} cannot be told apart in their time to",
            "one seed": f"with one seed, and so without an interval, {e} and {x} are timed to",
        }[time.verdict(1.0)]
        times = f"{time_to_target(pace.candidate)} against {time_to_target(pace.baseline)} of training"
        lines.append(f"{said[0].upper()}{said[1:]} {goal}: {times}; {x} takes {_times(time)} as long.")
        if pace.speed:
            lines.append(
                f"That is a factor of {_factor(pace.speed)} in images per second and of "
                f"{_factor(pace.ratios['samples'])} in images needed."
            )
        return lines
    met = [
        f"by {standing.met} of {text.counted(standing.ran, 'seed')} of {name}"
        for standing, name in ((pace.baseline, x), (pace.candidate, e))
    ]
    lines.append(f"{goal[0].upper()}{goal[1:]} is met {text.joined(met)}, so there is no ratio of times.")
    if pace.speed:
        lines.append(f"In training {e} has {_times(pace.speed)} the images per second of {x}.")
    return lines


def _times(ratio: Estimate) -> str:
    """`1.90 times (95 % interval 1.53 to 2.36)`."""
    return _factor(ratio, " times")


def _factor(ratio: Estimate, words: str = "") -> str:
    """`1.90 (95 % interval 1.53 to 2.36)`."""
    shown, ends = _split(text.interval(ratio.value, ratio.low, ratio.high))
    return shown + words + (f" (95 % interval {ends})" if ends else "")


def _point(outcome: Outcome, comparison: Comparison) -> str:
    """One comparison that is not the headline's."""
    one = outcome.called(comparison.one)
    other = called(outcome, comparison.other, averaged=comparison.averaged)
    difference = _differs(one, other, comparison)
    if comparison.budget is not None:
        seconds = comparison.equal == "seconds"
        spent = text.duration(comparison.budget) if seconds else f"{text.count(comparison.budget)} MACs"
        return f"After the same {spent} of training, {difference}{_cut(outcome, comparison)}."
    if comparison.averaged:
        costs = f"{text.times(comparison.cost)} the MACs per image"
        if comparison.time:
            costs += f" and takes {_times(comparison.time)} as long to answer"
        return f"{difference}; {other} costs {costs}."
    if comparison.one.key == "wide":
        share = comparison.one.linear_parameters / comparison.other.linear_parameters
        of = f"{text.times(share)} the linear parameters and {text.times(1 / comparison.cost)} the MACs"
        return f"With {of} of {other}, {difference}."
    if comparison.other.key in _OF_HALF_THE_MACS:
        return f"{difference}; {other} has {text.times(comparison.cost)} the MACs and a whole schedule."
    return f"After the same steps, {difference}."


def _cut(outcome: Outcome, comparison: Comparison) -> str:
    """Whose training goes on after that."""
    if comparison.cut is None:
        return ""
    entrant, share = comparison.cut
    return f"; {outcome.called(entrant)} is cut at {text.percent(share)} of its schedule"


def _about_cuts(outcome: Outcome) -> list[str]:
    """The caveat of trainings that are looked at before their schedules end."""
    if not any(comparison.cut for comparison in _told(outcome)):
        return []
    return ["What is cut before its schedule ends is below what a schedule of that length would reach."]


def _mirrored(outcome: Outcome) -> list[str]:
    """What becomes of both on mirrored images."""
    said = []
    them = "them" if outcome.measure.of == "images" else f"their {outcome.measure.of}"
    for role in ("baseline", "candidate"):
        standing = outcome.standings.get(role)
        if standing is None or not standing.trials:
            return []
        plain, mirrored, same = (
            fmean(standing.of_ends(figure))
            for figure in (
                lambda accuracy: accuracy.plain.figure,
                lambda accuracy: accuracy.mirrored.figure,
                lambda accuracy: accuracy.flip_consistency,
            )
        )
        said.append(
            f"{outcome.called(role)} has {text.percent(mirrored, 1)} {outcome.measure} "
            f"({text.percent(plain, 1)} as they are) and decides as before on {text.coverage(same)} of {them}"
        )
    share = outcome.race.data.mirror_asymmetry
    data = "" if share is None else f" Of the class means' energy {text.percent(share, 1)} is antisymmetric."
    return [f"On mirrored images, {'; '.join(said)}.{data}"]


def _energy(outcome: Outcome) -> list[str]:
    """What a whole training costs, against what it costs the baseline."""
    if outcome.pace is None or outcome.pace.energy is None:
        return []
    e, x = outcome.called("candidate"), outcome.called("baseline")
    return [f"A whole training of {e} takes {_times(outcome.pace.energy)} the energy of one of {x}."]


def _unfinished(outcome: Outcome) -> list[str]:
    """What is missing, and why."""
    lines = []
    if outcome.failed:
        named = [
            f"{outcome.called(trial.entrant)} with seed {trial.seed} ({trial.status}, "
            f"{text.printable(trial.reason)})"
            for trial in outcome.failed
        ]
        count = text.counted(len(named), "training")
        lines.append(
            f"{count} did not end well and count{'s' * (len(named) == 1)} for nothing: {_few(named)}."
        )
    if len(outcome.trials) < outcome.planned:
        lines.append(f"{len(outcome.trials)} of {outcome.planned} trainings have run.")
    return lines


def _few(named: Iterable[str]) -> str:
    """The first three, and how many more there are."""
    first, rest = [*named][:3], [*named][3:]
    return text.joined([*first, f"{len(rest)} more"] if rest else first)
