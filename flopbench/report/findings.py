"""The report's answer in plain words. Every statement follows from the figures and their intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flopbench.modes import ENGINES
from flopbench.report import text
from flopbench.report.along import RESOLUTION, over_resolutions, where_it_pays
from flopbench.report.cells import (
    SETTING,
    Row,
    Rows,
    about,
    by,
    by_setting,
    counted_in_full,
    flag_kinds,
    headline,
    is_stock,
    kernels_words,
    label_of,
    other_worlds,
    promising,
    setting_of,
    setting_words,
    tops,
    verdict,
    work_of,
)
from flopbench.report.engines import fair_baselines, kept_promises
from flopbench.report.phrases import baseline_of, is_rival, pass_words, shown_interval
from flopbench.results import OURS, TORCHS

Worlds = Mapping[str, Rows]
"""The cells of each world by its words, the one that is spoken of first."""


@dataclass(frozen=True)
class Answer:
    """What one run says: the headline, in which engines promises are kept and the best against the best, a
    point per pair, and remarks.
    """

    run: str
    headline: str
    points: tuple[str, ...]
    best: tuple[str, ...] = ()

    @property
    def in_short(self) -> str:
        """What a terminal ends with."""
        return "\n".join([self.headline, *self.best])


def answer(run: str, device_name: str, cells: Rows, total: int) -> Answer:
    """The answer of one run.

    Args:
        run: its id.
        device_name: what it was measured on.
        cells: its measured cells (`cells.measured`).
        total: how many cells it has in all, measured or not.
    """
    device = text.with_article(text.printable(device_name))
    known = len(cells)
    stock, cells = [row for row in cells if is_stock(row)], promising(cells)
    chosen = headline(cells)
    if not chosen:
        return Answer(run, f"On {device}, no cell has a speed-up.", ())
    # What is said of each world: its words, and its cells.
    worlds = {kernels_words(own): own for own in [chosen, *other_worlds(chosen, cells)]}
    where = f"On {device} ({setting_words(chosen, kernels=len(worlds) == 1)})"
    everything = tops(chosen)
    # What test-time augmentation costs is said on its own: nobody expects less than twice as much.
    spoken_of = [top for top in everything if not is_rival(top)] or everything
    rivals = [top for top in everything if top not in spoken_of]
    # What is one point of a line over resolutions is said there.
    lines = [row for line in RESOLUTION.lines(chosen) for row in line]
    points = [_pair_sentence(top, worlds) for top in spoken_of if top not in lines]
    if len(spoken_of) == 1 and points:
        first = f"{where}, {points.pop()}"
    else:
        first = f"{where}, {_overview({words: _same_work(spoken_of, own) for words, own in worlds.items()})}"
        points += _extremes([top for top in spoken_of if top not in lines])
    points += [_pair_sentence(top, worlds) for top in rivals if top not in lines]
    points += _over_torch(spoken_of, worlds)
    points += fair_baselines(stock) if len(cells) < known else []
    points += _energy(spoken_of)
    told = {setting_of(own[0]) for own in worlds.values()}
    others = by_setting([row for row in cells if setting_of(row) not in told])
    points += [_other_setting(words, other) for words, other in others.items()]
    points += [*where_it_pays(chosen), *over_resolutions(chosen)]
    points += _about_the_macs(spoken_of)
    points += _with_care([row for own in worlds.values() for row in _same_work(everything, own)])
    if known < total:
        points.append(
            f"{known} of {total} cells have a speed-up; the others are listed below with the reason."
        )
    best = (*kept_promises(cells), *_best_against_best(spoken_of, cells))
    return Answer(run, first, tuple(points), best)


# So many pairs have a sentence each, and are named one by one.
_FEW = 3


def _best_against_best(spoken_of: Rows, cells: Rows) -> list[str]:
    """The fastest baseline against the fastest candidate, of all modes of torch, or of the engine that is
    spoken of, and all kernels of the same arithmetic.

    A speed-up within one mode is of no use to who would run either network in another one. Of more than a few
    pairs, those of which that is the cell that is spoken of anyway share a sentence.
    """
    said, as_spoken_of = [], []
    for top in spoken_of:
        same = [row for row in _same_work([top], cells) if _arithmetic(row) == _arithmetic(top)]
        if len(same) < 2:
            continue
        x, e = (min(same, key=lambda row: row[f"{role}_seconds"]) for role in ("baseline", "candidate"))
        if x is e is top and len(spoken_of) > _FEW:
            as_spoken_of.append(top)
            continue
        if x is e:
            ratio, basis = x["speedup"], f"95 % interval {shown_interval(x)[1]}"
        else:
            ratio = x["baseline_seconds"] / e["candidate_seconds"]
            basis = "medians of separate processes"
        kinds = sorted({kind for row in (x, e) for kind in flag_kinds(row)})
        flagged = f"; flagged ({text.joined(kinds)})" if kinds else ""
        said.append(
            f"Best against best, {pass_words(top['pass'])} at batch {top['batch_size']}: "
            f"{_fastest(e, 'candidate')} is {text.times(ratio)} as fast as {_fastest(x, 'baseline')}"
            f", {basis}{flagged}.".replace("\u00a0", " ")
        )
    for (pass_, batch), own in by(as_spoken_of, "pass", "batch_size").items():
        names = [text.printable(top["pair_label"]) for top in own]
        everyone = "all" if len(own) == len(spoken_of) else f"{len(own)} of the"
        who = names if len(own) <= _FEW else [f"{everyone} candidates"]
        said.append(
            f"Best against best, {pass_words(pass_)} at batch {batch}: "
            f"{text.joined([*who, 'their baselines'])} are fastest as they are compared here "
            f"({setting_words(own)})."
        )
    return said


def _arithmetic(row: Row) -> tuple[object, ...]:
    """What settings have in common that compute the same: all but the mode and the kernels asked for.

    Who serves with an engine has chosen it: of engines each is one of its own.
    """
    engine = row["mode"] if row["mode"] in ENGINES else ""
    return (engine, *(row[axis.name] for axis in SETTING if axis.name not in ("mode", "impl")))


def _fastest(row: Row, role: str) -> str:
    """`ViT-B/16 (fp32, compiled, 61.0 ms)`."""
    label, seconds = label_of(row, role), text.seconds(row[f"{role}_seconds"])
    return f"{label} ({setting_words([row])}, {seconds})"


def _with_care(cells: Rows) -> list[str]:
    """That cells which the answer rests on are flagged; being launch-bound is said elsewhere."""
    flagged = [kinds for row in cells if (kinds := set(flag_kinds(row)) - {"launch-bound"})]
    if not flagged:
        return []
    kinds = text.joined(sorted(set().union(*flagged)))
    if len(cells) == 1:
        which = "This measurement is"
    elif len(flagged) == len(cells):
        which = "Both of these are" if len(cells) == 2 else f"All {len(cells)} of these are"
    else:
        which = f"{len(flagged)} of these {len(cells)} {'is' if len(flagged) == 1 else 'are'}"
    return [f"{which} flagged ({kinds}): see below what to take with care."]


def _times(row: Row, what: str = "95 % interval ") -> str:
    """`1.44× as fast (95 % interval 1.43 to 1.46)`, or that no difference can be seen."""
    estimate, bounds = shown_interval(row)
    if verdict(row) == "faster":
        return f"runs {estimate}× as fast ({what}{bounds})"
    if verdict(row) == "slower":
        return f"is slower: it runs {estimate}× as fast ({what}{bounds})"
    return f"is neither faster nor slower as far as can be told ({what}{bounds})"


def _same_work(spoken_of: Rows, cells: Rows) -> list[Row]:
    """Of `cells` those of the same networks, passes and batch sizes."""
    wanted = {work_of(top) for top in spoken_of}
    return [row for row in cells if work_of(row) in wanted]


def _over_torch(spoken_of: Rows, worlds: Worlds) -> list[str]:
    """What our kernels do for the baseline too: its speed with them over its speed with torch's own."""
    if not worlds.keys() >= {OURS, TORCHS}:
        return []
    lines = []
    for (label, pass_, batch), own in by(spoken_of, "baseline_label", "pass", "batch_size").items():
        gains = []
        for top in own:
            (ours,), (torchs,) = (_same_work([top], worlds[words]) for words in (OURS, TORCHS))
            gains.append(torchs["baseline_seconds"] / ours["baseline_seconds"])
        lines.append(
            f"{text.printable(label)} itself runs {_span(gains, text.factor, '×')} as fast {OURS} as "
            f"{TORCHS}, {pass_words(pass_)} at batch {batch} (medians of separate processes)."
        )
    return lines


def _energy(spoken_of: Rows) -> list[str]:
    """What an image costs with the candidate, as a share of what it costs with the baseline."""
    lines = []
    for top in spoken_of:
        if top["baseline_joules"] is None or top["candidate_joules"] is None:
            continue
        whose = "the whole processor's" if top["device"] == "cpu" else "the card's"
        share = text.percent(top["candidate_joules"] / top["baseline_joules"])
        watts = [f"{text.significant(top[f'{role}_watts'])} W" for role in ("candidate", "baseline")]
        lines.append(
            f"{label_of(top, 'candidate')} takes {share} of the energy of "
            f"{text.printable(top['baseline_label'])}, {pass_words(top['pass'])} at batch "
            f"{top['batch_size']} ({whose}, on average {watts[0]} against {watts[1]}).".replace("\u00a0", " ")
        )
    return lines


def _pair_sentence(top: Row, worlds: Worlds) -> str:
    candidate, baseline = label_of(top, "candidate"), baseline_of(top)
    needs = ""
    if top["macs_ratio"] is not None:
        needs = f" needs {about(top, text.percent(1 / top['macs_ratio']))} of the MACs of {baseline}"
    said = {}
    for words, cells in worlds.items():
        own = [row for row in cells if row["network"] == top["network"]]
        (same,) = _same_work([top], own)
        said[words] = [_in_every_pass(same, own), *_promise(same), *_launch_bound(own, same["pass"])]
    if len(said) == 1:
        (clauses,) = said.values()
        sentence = f"{candidate}{needs}{' and' * bool(needs)} {'; '.join(clauses)}"
    else:
        sentence = f"{candidate}{needs}: " + "; ".join(
            f"{words} it {', '.join(clauses)}" for words, clauses in said.items()
        )
    return sentence.replace("\u00a0", " ") + "."


def _in_every_pass(top: Row, own: Rows) -> str:
    """How fast a pair is in the cell that is spoken of, and in the other passes at their largest batch."""
    sentence = f"{_times(top)} {pass_words(top['pass'])} at batch {top['batch_size']}"
    for pass_, group in by([row for row in own if row["pass"] != top["pass"]], "pass").items():
        other = max(group, key=lambda row: row["batch_size"])
        said = _times(other, "")
        if verdict(top) == verdict(other) == "slower":
            said = said.removeprefix("is slower: it ")
        sentence += f", and {said} {pass_words(pass_)}"
        if other["batch_size"] != top["batch_size"]:
            sentence += f" at batch {other['batch_size']}"
    return sentence


def _promise(row: Row) -> list[str]:
    if row["realised_share"] is None or verdict(row) == "level":
        return []
    if verdict(row) == "slower":
        return ["nothing of what the MACs promise is realised"]
    return [f"{about(row, text.percent(row['realised_share']))} of what the MACs promise is realised"]


def _about_the_macs(spoken_of: Rows) -> list[str]:
    """Why there is no ratio of MACs, or what it leaves out."""
    said: dict[str, None] = {}
    for top in spoken_of:
        for role in ("baseline", "candidate"):
            label, left_out = text.printable(top[f"{role}_label"]), text.printable(top[f"{role}_uncounted"])
            if top[f"{role}_macs"] is None:
                said[f"The MACs of {label} could not be counted, so nothing is promised."] = None
            elif left_out:
                said[f"What is marked ≈ rests on the MACs of {label}, which leave out {left_out}."] = None
            elif top[f"{role}_macs"] == 0:
                said[f"{label} has no matrix product or convolution, so no MACs to promise anything."] = None
    return list(said)


def _launch_bound(own: Rows, pass_: str) -> list[str]:
    """Which batch sizes are launch-bound, of one pair in one pass."""
    cells = [row for row in own if row["pass"] == pass_]
    batches = sorted(row["batch_size"] for row in cells if "launch-bound" in flag_kinds(row))
    free = sorted(row["batch_size"] for row in cells if "launch-bound" not in flag_kinds(row))
    if not batches:
        return []
    if not free:
        where = "at every batch size measured"
    elif batches[-1] < free[0]:
        where = f"below batch {free[0]}"
    else:
        where = f"at batch {text.joined([str(batch) for batch in batches])}"
    return [f"{where} it is launch-bound"]


def _span(values: Sequence[float], show: Callable[[float], str], suffix: str = "") -> str:
    low, high = show(min(values)), show(max(values))
    return f"{low}{suffix}" if low == high else f"between {low}{suffix} and {high}{suffix}"


def _overview(worlds: Worlds) -> str:
    cells = next(iter(worlds.values()))
    batches = {top["batch_size"] for top in cells}
    where = f"at batch {batches.pop()}" if len(batches) == 1 else "at the largest batch of each"
    slower = {work_of(row) for world in worlds.values() for row in world if verdict(row) != "faster"}
    faster = len(cells) - len(slower)
    everyone = "both" if len(cells) == 2 else f"all {len(cells)}"
    count = everyone if faster == len(cells) else f"{faster or 'none'} of {len(cells)}"
    run = "runs" if faster == 1 else "run"
    per = " (counted per resolution)" * bool(RESOLUTION.lines(cells))
    sentence = (
        f"{count} candidates{per} {run} faster than the baseline {pass_words(cells[0]['pass'])} {where}"
    )
    spans = {words: _span([row["speedup"] for row in own], text.factor, "×") for words, own in worlds.items()}
    named = [f"{span} {words}" for words, span in spans.items()] if len(spans) > 1 else [*spans.values()]
    sentence += f"; the speed-up is {text.joined(named)}"
    ratios = [1 / top["macs_ratio"] for top in cells if top["macs_ratio"] is not None]
    if ratios:
        mark = "" if all(map(counted_in_full, cells)) else "≈"
        sentence += f", with {_span(ratios, lambda ratio: mark + text.percent(ratio))} of the MACs"
    return sentence.replace("\u00a0", " ") + "."


def _extremes(cells: Rows) -> list[str]:
    """Which pair gains most and which least, where their intervals tell them apart from the next."""
    if len(cells) < 2:
        return []
    ordered = sorted(cells, key=lambda top: top["speedup"], reverse=True)
    best, worst = ordered[0], ordered[-1]
    if best["speedup_low"] <= worst["speedup_high"]:
        return ["The intervals of the best and the worst pair overlap: they cannot be told apart."]
    leaders = [top for top in ordered if top["speedup_high"] >= best["speedup_low"]]
    trailers = [top for top in ordered if top["speedup_low"] <= worst["speedup_high"]]
    return [f"{_group(leaders, 'most')}, {_group(trailers, 'least')}."]


def _group(cells: Rows, rank: str) -> str:
    names = text.joined([text.printable(top["pair_label"]) for top in cells])
    if len(cells) == 1:
        return f"{names} gains {rank} ({text.factor(cells[0]['speedup'])}×)"
    return f"{names} gain {rank} and cannot be told apart"


def _other_setting(words: str, cells: Rows) -> str:
    spoken_of = tops(cells)
    speedups = _span([top["speedup"] for top in spoken_of], text.factor, "×")
    kinds = [verdict(top) for top in spoken_of]
    count = text.joined(
        [f"{kinds.count(kind)} {kind}" for kind in ("faster", "level", "slower") if kind in kinds]
    )
    return f"{words[0].upper()}{words[1:]}: {pass_words(spoken_of[0]['pass'])} speed-up {speedups} ({count})."
