"""The report's answer in plain words. Every statement follows from the figures and their intervals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flopbench.report import text

if TYPE_CHECKING:
    import pandas as pd

# What two cells of one pair may differ in besides batch size and pass.
SETTING = ("dtype", "mode", "image_size", "attention", "memory_format")

# Difference of log throughputs below which a baseline is as fast in one setting as in another.
_SAME_SPEED = 0.02


@dataclass(frozen=True)
class Answer:
    """What one run says: the headline, a point a pair, and remarks."""

    run: str
    headline: str
    points: tuple[str, ...]


def headline_setting(cells: "pd.DataFrame") -> tuple[str, ...] | None:
    """The setting that the answer is about: among those with most pairs, the baseline's fastest.

    A speed-up over a slow baseline is no news: who would adopt the candidate runs the baseline as
    fast as it goes. Where two settings give the baseline the same speed, the candidate's decides.
    Settings are compared on the same pair, pass and batch size.
    """
    import numpy as np

    if cells.empty:
        return None
    pairs = cells.groupby(list(SETTING))["pair"].nunique()
    complete = sorted(pairs[pairs == pairs.max()].index)

    def speed(role: str) -> "pd.Series":
        logs = np.log(cells[f"{role}_throughput"].astype(float))
        mean = logs.groupby([cells["pair"], cells["pass"], cells["batch_size"]]).transform("mean")
        return (logs - mean).groupby([cells[key] for key in SETTING]).mean()

    baseline, candidate = speed("baseline"), speed("candidate")
    fastest = max(baseline[setting] for setting in complete)
    level = [setting for setting in complete if baseline[setting] > fastest - _SAME_SPEED]
    return max(level, key=lambda setting: candidate[setting])


def in_setting(cells: "pd.DataFrame", setting: tuple[str, ...]) -> "pd.DataFrame":
    """The cells of one setting."""
    mask = (cells[list(SETTING)] == list(setting)).all(axis=1)
    return cells[mask]


def setting_words(setting: tuple[str, ...]) -> str:
    """`bf16, compiled`; what is as usual is left out."""
    dtype, mode, image_size, attention, memory_format = setting
    words = [text.dtype_words(dtype), text.mode_words(mode)]
    words += [f"{image_size} pixels"] if image_size != "224×224" else []
    words += [f"{attention} attention"] if attention != "fused" else []
    words += [memory_format] if memory_format != "contiguous" else []
    return ", ".join(words)


def answer(run: str, device_name: str, cells: "pd.DataFrame", total: int) -> Answer:
    """The answer of one run.

    Args:
        run: its id.
        device_name: what it was measured on.
        cells: its measured cells (`tables.measured`).
        total: how many cells it has in all, measured or not.
    """
    setting = headline_setting(cells)
    device = _with_article(text.printable(device_name))
    if setting is None:
        return Answer(run, f"On {device}, no cell could be measured.", ())
    chosen = in_setting(cells, setting)
    where = f"On {device} ({setting_words(setting)})"
    tops = [_at_largest_batch(group) for _, group in chosen.groupby("pair", sort=False)]
    if len(tops) == 1:
        headline = f"{where}, {_pair_sentence(tops[0], chosen)}"
        points = []
    else:
        headline = f"{where}, {_overview(tops)}"
        points = [_pair_sentence(top, chosen) for top in tops]
        points += _extremes(tops)
    points += [_other_setting(other, cells) for other in _settings(cells) if other != setting]
    if len(cells) < total:
        points.append(
            f"{len(cells)} of {total} cells have a speed-up; the others are listed below with the reason."
        )
    return Answer(run, headline, tuple(points))


def _with_article(device: str) -> str:
    return f"{'an' if device.startswith(('NVIDIA', *'AEIOaeio')) else 'a'} {device}"


def verdict(row: dict[str, Any]) -> str:
    """`faster`, `slower` or `level`: the last where the interval holds 1."""
    return "faster" if row["speedup_low"] > 1 else "slower" if row["speedup_high"] < 1 else "level"


def _settings(cells: "pd.DataFrame") -> list[tuple[str, ...]]:
    return list(cells[list(SETTING)].drop_duplicates().itertuples(index=False, name=None))


def _at_largest_batch(group: "pd.DataFrame") -> dict[str, Any]:
    """The row of one pair that is spoken of: the forward pass, if measured, at the largest batch."""
    forward = group[group["pass"] == "forward"]
    group = group if forward.empty else forward
    return group.loc[group["batch_size"].idxmax()].to_dict()


def _times(row: dict[str, Any]) -> str:
    """`1.44× as fast (95 % interval 1.43 to 1.46)`, or that no difference can be seen."""
    shown = text.interval(row["speedup"], row["speedup_low"], row["speedup_high"]).replace("\u00a0", " ")
    estimate, _, bounds = shown.partition(" [")
    bounds = bounds.rstrip("]").replace(", ", " to ")
    if verdict(row) == "faster":
        return f"runs {estimate}× as fast (95 % interval {bounds})"
    if verdict(row) == "slower":
        return f"is slower: it runs {estimate}× as fast (95 % interval {bounds})"
    return f"is neither faster nor slower as far as can be told (95 % interval of the speed-up {bounds})"


def _pair_sentence(top: dict[str, Any], cells: "pd.DataFrame") -> str:
    own = cells[cells["pair"] == top["pair"]]
    candidate, baseline = text.printable(top["candidate_label"]), text.printable(top["baseline_label"])
    needs = ""
    if not text.is_missing(top["macs_ratio"]):
        needs = f"needs {text.percent(1 / top['macs_ratio'])} of the MACs of {baseline} and "
    sentence = f"{candidate} {needs}{_times(top)} {_pass_words(top['pass'])} at batch {top['batch_size']}"
    others = own[(own["batch_size"] == top["batch_size"]) & (own["pass"] != top["pass"])]
    for other in others.to_dict("records"):
        sentence += f", and {_times(other)} {_pass_words(other['pass'])}"
    clauses = [sentence, *_promise(top), *_launch_bound(own[own["pass"] == top["pass"]])]
    return "; ".join(clauses).replace("\u00a0", " ") + "."


def _pass_words(pass_: str) -> str:
    return {"forward": "forward", "backward": "backward", "train": "in a training step"}[pass_]


def _promise(row: dict[str, Any]) -> list[str]:
    if text.is_missing(row["realised_share"]) or verdict(row) == "level":
        return []
    if verdict(row) == "slower":
        return ["nothing of what the MACs promise is realised"]
    return [f"{text.percent(row['realised_share'])} of what the MACs promise is realised"]


def _launch_bound(cells: "pd.DataFrame") -> list[str]:
    """Which batch sizes are launch-bound, of one pair and pass."""
    bound = cells["flags"].str.contains("launch-bound", regex=False)
    batches, free = sorted(cells["batch_size"][bound]), sorted(cells["batch_size"][~bound])
    if not batches:
        return []
    if not free:
        where = "at every batch size measured"
    elif batches[-1] < free[0]:
        where = f"below batch {free[0]}"
    else:
        where = f"at batch {text.joined([str(batch) for batch in batches])}"
    return [f"{where} it is launch-bound"]


def _span(values: "list[float]", show: Any, suffix: str = "") -> str:
    low, high = show(min(values)), show(max(values))
    return f"{low}{suffix}" if low == high else f"between {low}{suffix} and {high}{suffix}"


def _overview(tops: list[dict[str, Any]]) -> str:
    batches = {top["batch_size"] for top in tops}
    where = f"at batch {batches.pop()}" if len(batches) == 1 else "at the largest batch of each"
    verdicts = [verdict(top) for top in tops]
    faster = verdicts.count("faster")
    count = f"all {len(tops)}" if faster == len(tops) else f"{faster or 'none'} of {len(tops)}"
    run = "runs" if faster == 1 else "run"
    sentence = f"{count} candidates {run} faster than the baseline {_pass_words(tops[0]['pass'])} {where}"
    speedups = [top["speedup"] for top in tops]
    sentence += f"; the speed-up is {_span(speedups, text.factor, '×')}"
    ratios = [1 / top["macs_ratio"] for top in tops if not text.is_missing(top["macs_ratio"])]
    if ratios:
        sentence += f", with {_span(ratios, text.percent)} of the MACs"
    return sentence.replace("\u00a0", " ") + "."


def _extremes(tops: list[dict[str, Any]]) -> list[str]:
    """Which pair gains most and which least, where their intervals tell them apart from the next."""
    ordered = sorted(tops, key=lambda top: top["speedup"], reverse=True)
    best, worst = ordered[0], ordered[-1]
    if best["speedup_low"] <= worst["speedup_high"]:
        return ["The intervals of the best and the worst pair overlap: they cannot be told apart."]
    leaders = [top for top in ordered if top["speedup_high"] >= best["speedup_low"]]
    trailers = [top for top in ordered if top["speedup_low"] <= worst["speedup_high"]]
    return [f"{_group(leaders, 'most')}, {_group(trailers, 'least')}."]


def _group(tops: list[dict[str, Any]], rank: str) -> str:
    names = text.joined([text.printable(top["candidate_label"]) for top in tops])
    if len(tops) == 1:
        return f"{names} gains {rank} ({text.factor(tops[0]['speedup'])}×)"
    return f"{names} gain {rank} and cannot be told apart"


def _other_setting(setting: tuple[str, ...], cells: "pd.DataFrame") -> str:
    tops = [_at_largest_batch(group) for _, group in in_setting(cells, setting).groupby("pair", sort=False)]
    words = setting_words(setting)
    speedups = _span([top["speedup"] for top in tops], text.factor, "×")
    kinds = [verdict(top) for top in tops]
    count = text.joined(
        [f"{kinds.count(kind)} {kind}" for kind in ("faster", "level", "slower") if kind in kinds]
    )
    return f"{words[0].upper()}{words[1:]}: {_pass_words(tops[0]['pass'])} speed-up {speedups} ({count})."
