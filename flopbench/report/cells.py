"""Rows of a run's frame, as tables, words and pictures take them: missing values are None."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, geometric_mean, median
from typing import TYPE_CHECKING, Any, Literal

from flopbench.cells import AXES
from flopbench.modes import ENGINES
from flopbench.report import text
from flopbench.report.labels import read, version_of
from flopbench.results.frame import IMAGES
from flopbench.results.percentiles import PERCENTILES
from flopbench.symmetries.registry import BASELINE

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
Rows = Sequence[Row]

# What two cells of one pair may differ in besides batch size and pass.
SETTING = tuple(axis for axis in AXES.values() if axis.about == "setting")
_NETWORK = tuple(axis.name for axis in AXES.values() if axis.about == "network")
TOLD_APART = tuple(axis for axis in AXES.values() if axis.about == "network" and not axis.in_label)
"""What networks are told apart by that their labels do not say: resolution, task, decoder…"""
_WORK = tuple(axis.name for axis in AXES.values() if axis.about == "work")
Setting = tuple[Any, ...]

# Difference of log throughputs below which a baseline is as fast in one setting as in another.
_SAME_SPEED = 0.02

Verdict = Literal["faster", "level", "slower"]


def rows_of(frame: "pd.DataFrame") -> list[Row]:
    """The rows of `results.to_frame`, one a cell, replicate and run.

    Further keys are `network`, of the pair at its width, depth, resolution, task…, which is what answers and
    pictures tell apart; `apart`, the words by axis of what differs between the rows and no label says; and
    `pair_label`, what they call it: by `pair_name`, which is its candidate's label, and its baseline's too
    where that says another or stands for several pairs, and by these words.
    """
    records: Any = frame.to_dict("records")
    rows: list[dict[str, Any]] = [
        {k: None if text.is_missing(v) else v for k, v in row.items()} for row in records
    ]
    against: dict[Any, set[Any]] = {}
    for row in rows:
        against.setdefault(row["candidate_label"], set()).add(row["baseline_label"])
    differing = [axis for axis in TOLD_APART if len({row[axis.name] for row in rows} - {None}) > 1]
    for row in rows:
        row["network"] = (row["pair"], *(row[name] for name in _NETWORK))
        row["apart"] = {axis.name: axis.say(row[axis.name], usual=True) for axis in differing}
        alone = len(against[row["candidate_label"]]) == 1
        row["pair_name"] = _pair_name(row, alone=alone)
        row["pair_label"] = pair_label_of(row)
    return [*rows]


SEPARATOR = " · "
"""Between a label and what it does not say."""


def which(row: Row, *, but: str = "") -> list[str]:
    """The words of what tells a row's networks from others and no label says, `but` for those of an axis."""
    return [words for name, words in row["apart"].items() if words and name != but]


def label_of(row: Row, role: str, *, but: str = "") -> str:
    """The printable label of the "baseline" or the "candidate", and what it does not say (`which`)."""
    return text.printable(SEPARATOR.join([row[f"{role}_label"], *which(row, but=but)]))


def pair_label_of(row: Row, *, but: str = "") -> str:
    """What a pair is called, and what that does not say (`which`)."""
    return SEPARATOR.join([row["pair_name"], *which(row, but=but)])


def baseline_is_told(row: Row) -> bool:
    """Whether the candidate's label says its baseline: E(X) against X."""
    return row["candidate_label"].endswith(f"({row['baseline_label']})")


def _pair_name(row: Row, *, alone: bool) -> str:
    candidate, baseline = row["candidate_label"], row["baseline_label"]
    says_another = version_of(candidate) != BASELINE
    if baseline_is_told(row) or (alone and not says_another and not is_stock(row)):
        return candidate
    return f"{candidate} against {baseline}"


def measured(rows: Rows) -> list[Row]:
    """The cells that have a speed-up, one row each.

    Replicates of a cell become one row: medians, the geometric mean of the speed-ups, and an interval
    from the lowest to the highest end of theirs, which holds what differs from process to process.
    """
    done: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["status"] == "ok" and row["speedup"] is not None:
            done.setdefault((row["run"], row["cell"]), []).append(row)
    return [group[0] if len(group) == 1 else _combined(group) for group in done.values()]


# The figures of one model that are read as numbers.
_MEDIANS = ("_seconds", "_throughput", "_watts", "_joules", "_images_per_joule", "_peak_bytes")


def _combined(replicates: Rows) -> Row:
    row = dict(replicates[0])
    for key in row:
        values = [replicate[key] for replicate in replicates if replicate[key] is not None]
        if values and key.endswith(_MEDIANS):
            row[key] = median(values)
    row["speedup"] = geometric_mean(replicate["speedup"] for replicate in replicates)
    row["speedup_low"] = min(replicate["speedup_low"] for replicate in replicates)
    row["speedup_high"] = max(replicate["speedup_high"] for replicate in replicates)
    row["realised_share"] = realised(row, row["speedup"])
    row |= _worst_errors(replicates)
    row["flags"] = ", ".join(dict.fromkeys(kind for own in replicates for kind in flag_kinds(own)))
    return row


def _worst_errors(rows: Rows) -> Row:
    found = {name: [row[name] for row in rows if row[name] is not None] for name in _ERRORS}
    return {name: max(errors, default=None) for name, errors in found.items()}


def items_of(rows: Rows) -> str:
    """What batches hold: images where all rows are of networks that take images, else samples."""
    return "images" if all(row.get("inputs", IMAGES) == IMAGES for row in rows) else "samples"


def counted_in_full(row: Row) -> bool:
    """Whether no operator of either model was left out of the MACs."""
    return not (row["baseline_uncounted"] or row["candidate_uncounted"])


def about(row: Row, shown: str) -> str:
    """A figure that rests on the MACs of both models, with a mark if operators were left out: `≈1.83`."""
    return shown if counted_in_full(row) else f"≈{shown}"


def realised(row: Row, speedup: float) -> float | None:
    """The share of the promise that `speedup` would be; None where the record has none."""
    return None if row["realised_share"] is None else (speedup - 1) / (row["macs_ratio"] - 1)


def flag_kinds(row: Row) -> list[str]:
    """The kinds of the flags of a cell."""
    return [kind for kind in row["flags"].split(", ") if kind]


def failures(rows: Rows) -> list[Row]:
    """The cells that have no speed-up, with their reasons."""
    return [row for row in rows if row["status"] != "ok"]


_ERRORS = ("invariance_error", "difference")
_OF_PAIRS = ("macs_ratio", "baseline_uncounted", "candidate_uncounted")


def models(rows: Rows) -> list[Row]:
    """One row per model and what no label says of it: image size, task, decoder…

    Keys: `label`, those of the axes `TOLD_APART` (`image_size` is None of networks with inputs of their own),
    `parameters`, `macs` and
    `uncounted`, the operators left out of these; of candidates also `macs_ratio`, with what was left out of
    it (`baseline_uncounted`, `candidate_uncounted`), and of all their cells the worst `invariance_error`
    and `difference` from the baseline's output.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        apart = {axis.name: row[axis.name] for axis in TOLD_APART}
        for role in ("baseline", "candidate"):
            if row[f"{role}_parameters"] is None:
                continue
            size = row["image_size"] if row["inputs"] == IMAGES else None
            model = found.setdefault(
                (row[f"{role}_label"], *apart.values()),
                {
                    "label": row[f"{role}_label"],
                    **apart,
                    "image_size": size,
                    **{key: row[f"{role}_{key}"] for key in ("parameters", "macs", "uncounted")},
                    **dict.fromkeys((*_OF_PAIRS, *_ERRORS)),
                },
            )
            if role == "candidate":
                if model["macs_ratio"] is None or baseline_is_told(row):
                    model |= {key: row[key] for key in _OF_PAIRS}
                model |= _worst_errors((model, row))
    return list(found.values())


def uncounted(rows: Rows) -> list[Row]:
    """The models (`models`) of which operators were left out of the MACs."""
    return [model for model in models(rows) if model["uncounted"]]


def what_ran(rows: Rows) -> list[Row]:
    """One row per model and what its operations ran as, with the passes, modes and requests it was seen in.

    Keys: `label`, `pass`, `mode`, `impl`, `kernels`; nothing of cells whose records do not say, or if no
    model has an operation of flopbench's.
    """
    found: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    if not any(row["world"] for row in rows):
        return []
    for row in rows:
        for role in ("baseline", "candidate"):
            if (kernels := row[f"{role}_kernels"]) is not None:
                seen = found.setdefault((row[f"{role}_label"], kernels or "no operation of flopbench's"), {})
                for key in ("pass", "mode", "impl"):
                    seen.setdefault(key, {})[row[key]] = None
    return [
        {"label": label, "kernels": kernels, **{key: ", ".join(values) for key, values in seen.items()}}
        for (label, kernels), seen in found.items()
    ]


_ENDS = {"": median, "_low": min, "_high": max}
_SERVING_FIGURES = ("first_call_seconds", "load_seconds", "disk_bytes", "peak_bytes", "joules")


def serving(rows: Rows) -> list[Row]:
    """One row per model and cell with serving figures; keys as in the frame, without the role.

    Replicates of a cell become one row: medians, intervals from the lowest to the highest end of theirs, a
    percentile only where each of them has it, and the calls of the one with the fewest.
    """
    cells = by((row for row in rows if row["candidate_latency_calls"] is not None), "run", "cell")
    return [_served(group, role) for group in cells.values() for role in ("baseline", "candidate")]


def _served(replicates: Rows, role: str) -> Row:
    row = {**replicates[0], **{key: replicates[0][f"{role}_{key}"] for key in ("label", "peak_source")}}
    for percentile in PERCENTILES:
        for end, combined in _ENDS.items():
            key = f"latency_p{percentile}{end}"
            values = [replicate[f"{role}_{key}"] for replicate in replicates]
            row[key] = None if None in values else combined(values)
    for key in _SERVING_FIGURES:
        known = [v for replicate in replicates if (v := replicate[f"{role}_{key}"]) is not None]
        row[key] = median(known) if known else None
    problems = (replicate[f"{role}_load_problem"] for replicate in replicates)
    return row | {
        "latency_calls": min(replicate[f"{role}_latency_calls"] for replicate in replicates),
        "load_problem": next(filter(None, problems), None),
    }


def setting_of(row: Row) -> Setting:
    """What a cell was measured in: dtype, mode, image size, attention, kernels that were asked for…"""
    return tuple(row[axis.name] for axis in SETTING)


def work_of(row: Row) -> tuple[Any, ...]:
    """What is done in a cell: of which network, pass and batch size."""
    return (row["network"], *(row[name] for name in _WORK))


def is_stock(row: Row) -> bool:
    """Whether a plain network of ours stands against somebody else's: a check of the baselines themselves."""
    candidate = read(row["candidate_label"])
    return candidate is not None and candidate.version == BASELINE and read(row["baseline_label"]) is None


def promising(cells: Rows) -> list[Row]:
    """The cells without the checks of baselines (`is_stock`), which are spoken of on their own; all of them
    where they are nothing else.
    """
    return [row for row in cells if not is_stock(row)] or [*cells]


def other_worlds(chosen: Rows, cells: Rows) -> list[list[Row]]:
    """The cells of each setting that differs from that of `chosen` in the kernels that ran, and nothing else.

    Only those that have all the cells which are spoken of: half a world would be compared with a whole one.
    """

    def apart_from_kernels(row: Row) -> list[Any]:
        return [row[axis.name] for axis in SETTING if axis.name != "impl"]

    spoken_of = {work_of(top) for top in tops(chosen)}
    own = kernels_words(chosen)
    same = [row for row in cells if row["world"] and apart_from_kernels(row) == apart_from_kernels(chosen[0])]
    others = [in_setting(same, setting) for setting in dict.fromkeys(map(setting_of, same))]
    return [
        other
        for other in others
        if chosen[0]["world"] and kernels_words(other) != own and spoken_of <= set(map(work_of, other))
    ]


def kernels_words(cells: Rows) -> str:
    """`with flopbench's kernels`: what ran in all cells of one setting.

    Where it was not recorded, or not the same in all, what was asked for, as usual unsaid in the first case.
    """
    worlds = {row["world"] for row in cells}
    if cells[0]["mode"] in ENGINES:
        # Of networks without an operation of flopbench's there is nothing to say.
        return max(worlds)
    if len(worlds) > 1:
        return f"{cells[0]['impl']} kernels"
    return worlds.pop() or AXES["impl"].say(cells[0]["impl"])


def headline(cells: Rows) -> list[Row]:
    """The cells in the setting that an answer is about: among those with most pairs, the baseline's fastest.

    A speed-up over a slow baseline is no news: who would adopt the candidate runs the baseline as
    fast as it goes. Where two settings give the baseline the same speed, the candidate's decides.
    Settings are compared on the same pair, pass and batch size.
    """
    if not cells:
        return []
    pairs: dict[Setting, set[tuple[Any, ...]]] = {}
    for row in cells:
        pairs.setdefault(setting_of(row), set()).add(row["network"])
    most = max(map(len, pairs.values()))
    complete = sorted((setting for setting, names in pairs.items() if len(names) == most), key=str)
    baseline, candidate = _speeds(cells, "baseline"), _speeds(cells, "candidate")
    fastest = max(baseline[setting] for setting in complete)
    level = [setting for setting in complete if baseline[setting] > fastest - _SAME_SPEED]
    return in_setting(cells, max(level, key=lambda setting: candidate[setting]))


def _speeds(cells: Rows, role: str) -> dict[Setting, float]:
    """Mean log throughput of each setting, relative to the mean over settings of the same work."""
    relative: dict[Setting, list[float]] = {}
    for group in by(cells, "network", *_WORK).values():
        logs = [math.log(row[f"{role}_throughput"]) for row in group]
        for row, log in zip(group, logs, strict=True):
            relative.setdefault(setting_of(row), []).append(log - fmean(logs))
    return {setting: fmean(values) for setting, values in relative.items()}


def in_setting(cells: Rows, setting: Setting) -> list[Row]:
    """The cells of one setting."""
    return [row for row in cells if setting_of(row) == setting]


def setting_words(cells: Rows, *, kernels: bool = True) -> str:
    """`bf16, compiled, with flopbench's kernels`, of cells of one setting; what is as usual is left out.

    Task, resolution and the like are said where all cells of the frame have the same.
    """
    one = cells[0]
    axes = [axis for axis in AXES.values() if axis in SETTING or axis in TOLD_APART]
    words = [axis.say(one[axis.name]) for axis in axes if axis.name not in ("impl", *one["apart"])]
    return ", ".join(filter(None, [*words, kernels_words(cells) * kernels]))


def by_setting(cells: Rows) -> dict[str, list[Row]]:
    """The cells of each setting by its words; by what was asked for too, where the same ran in two."""
    named: dict[str, list[Row]] = {}
    for setting in dict.fromkeys(map(setting_of, cells)):
        group = in_setting(cells, setting)
        words = setting_words(group)
        named[f"{words}, {group[0]['impl']} asked for" if words in named else words] = group
    return named


def by(cells: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    """Cells grouped by one key (the value) or several (a tuple), groups and cells in their order."""
    groups: dict[Any, list[Row]] = {}
    for row in cells:
        groups.setdefault(row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys), []).append(row)
    return groups


def tops(cells: Rows) -> list[Row]:
    """Of each pair the cell that is spoken of: the forward pass, if measured, at the largest batch."""
    found = []
    for group in by(cells, "network").values():
        forward = [row for row in group if row["pass"] == "forward"] or group
        found.append(max(forward, key=lambda row: row["batch_size"]))
    return found


def verdict(row: Row) -> Verdict:
    """`level` where the interval of the speed-up holds 1."""
    return "faster" if row["speedup_low"] > 1 else "slower" if row["speedup_high"] < 1 else "level"
