"""Engines side by side: in which of them the promise is kept, and whether the baselines are fair there."""

from statistics import median

from flopbench.cells import AXES
from flopbench.modes import ENGINES, EXPORTED
from flopbench.report import text
from flopbench.report.cells import (
    SETTING,
    Row,
    Rows,
    about,
    by,
    label_of,
    realised,
    verdict,
)
from flopbench.report.phrases import pass_words

KEPT = 0.8
"""The realised share from which on a promise counts as kept."""

_TORCH = {
    "eager": "in eager torch",
    "compile": "with torch.compile",
    "compile-blocks": "with compiled blocks",
    "max-autotune": "with max-autotune",
    "cuda-graph": "as a CUDA graph",
}


def ran_in(mode: str) -> str:
    """What a network runs in, in a sentence: `in ONNX Runtime`, `with torch.compile`."""
    return _TORCH.get(mode) or AXES["mode"].say(mode)


def engine_name(mode: str) -> str:
    """The same as a name: `ONNX Runtime`, `torch.compile`."""
    return ran_in(mode).split(" ", 1)[1].removeprefix("a ")


def kept_promises(cells: Rows) -> list[str]:
    """A sentence per pair: in which engines at least `KEPT` of its promise is realised, by the intervals.

    It is of the forward pass at the largest batch size, in the engine's idiom where both ways of exporting
    were measured; nothing where no engine was.
    """
    promising = [row for row in cells if row["pass"] == "forward" and row["realised_share"] is not None]
    if not any(row["mode"] in ENGINES for row in promising):
        return []
    several = len({_arithmetic(row) for row in promising}) > 1
    return [_promise(group, several=several) for group in _side_by_side(promising)]


def fair_baselines(cells: Rows) -> list[str]:
    """A sentence per plain network of ours against somebody else's: in which engine it is the slower one."""
    several = len({_arithmetic(row) for row in cells}) > 1
    return [_fairness(group, several=several) for group in _side_by_side(cells)]


_STARTING = ("export_seconds", "load_seconds", "disk_bytes", "first_call_seconds")


def deployed(rows: Rows) -> list[Row]:
    """One row per model and cell that an engine executed; keys as in the frame, without the role.

    Replicates of a cell become one row: medians, and the largest errors. `invariance_in_cell` is the
    candidate's.
    """
    cells = by((row for row in rows if row["engine"] is not None), "run", "cell")
    return [_deployed(group, role) for group in cells.values() for role in ("baseline", "candidate")]


def _deployed(replicates: Rows, role: str) -> Row:
    row = {**replicates[0], "label": replicates[0][f"{role}_label"]}
    row["exported"] = EXPORTED.get(row["impl"], row["impl"])
    for key in _STARTING:
        row[key] = median(replicate[f"{role}_{key}"] for replicate in replicates)
    errors = {"agreement": f"{role}_agreement", "invariance_in_cell": "invariance_in_cell"}
    for key, source in errors.items():
        known = [error for replicate in replicates if (error := replicate[source]) is not None]
        row[key] = max(known, default=None)
    if role == "baseline":
        row["invariance_in_cell"] = None
    return row


def _arithmetic(row: Row) -> tuple[str, ...]:
    """The words of what is computed, whatever executes it: `fp32`."""
    return tuple(words for a in SETTING if a.name not in ("mode", "impl") and (words := a.say(row[a.name])))


def _side_by_side(cells: Rows) -> list[list[Row]]:
    """Of each pair and arithmetic the cells at its largest batch size, one per mode."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in cells:
        groups.setdefault((row["network"], row["pass"], _arithmetic(row)), []).append(row)
    found = []
    for group in groups.values():
        largest = max(row["batch_size"] for row in group)
        modes = by([row for row in group if row["batch_size"] == largest], "mode")
        found.append([min(own, key=lambda row: row["impl"] != "auto") for own in modes.values()])
    return found


def _where(row: Row, *, several: bool) -> str:
    arithmetic = f" in {', '.join(_arithmetic(row))}" if several else ""
    return f"{pass_words(row['pass'])} at batch {row['batch_size']}{arithmetic}"


def _promise(group: Rows, *, several: bool) -> str:
    kept, missed, open_ = [], [], []
    for row in group:
        low, high = (realised(row, row[f"speedup_{end}"]) or 0.0 for end in ("low", "high"))
        share = about(row, text.percent(row["realised_share"]))
        if low >= KEPT:
            kept.append(ran_in(row["mode"]))
        elif high < KEPT:
            missed.append(f"{ran_in(row['mode'])} ({share})")
        else:
            ends = f"{text.percent(low)} to {text.percent(high)}"
            open_.append(f"{ran_in(row['mode'])} ({share}, 95 % interval {ends})")
    share = f"{text.percent(KEPT)} of its promise {_where(group[0], several=several)}"
    if kept:
        said = [f"keeps at least {share} {text.joined(kept)}"]
        said += [f"not {text.joined(missed, 'or')}"] if missed else []
        said += [f"it cannot be told {text.joined(open_, 'or')}"] if open_ else []
    else:
        said = [f"keeps less than {share} {text.joined(missed)}"] if missed else []
        said += [f"whether it keeps {share} cannot be told {text.joined(open_, 'or')}"] if open_ else []
    return f"{label_of(group[0], 'candidate')} {'; '.join(said)}.".replace("\u00a0", " ")


def _fairness(group: Rows, *, several: bool) -> str:
    one = group[0]
    slower = [row for row in group if verdict(row) == "slower"]
    rest = [row for row in group if row not in slower]

    def named(rows: Rows) -> str:
        return text.joined([f"{ran_in(row['mode'])} ({text.times(row['speedup'])})" for row in rows])

    baseline, where = text.printable(one["baseline_label"]), _where(one, several=several)
    said = [f"is slower than {baseline} {named(slower)}"] if slower else []
    said += [f"is no slower{'' if slower else f' than {baseline}'} {named(rest)}"] if rest else []
    return f"{label_of(one, 'candidate')}, {where}, {'; it '.join(said)}."
