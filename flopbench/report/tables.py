"""The tables of runs: which columns they have, and which of them say something."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flopbench.cells import AXES
from flopbench.errors import FlopbenchError
from flopbench.report import FORMATS, text
from flopbench.report.cells import (
    TOLD_APART,
    Row,
    Rows,
    about,
    baseline_is_told,
    failures,
    items_of,
    measured,
    models,
    serving,
    uncounted,
    verdict,
    what_ran,
)
from flopbench.report.engines import deployed
from flopbench.report.table import KEY, Column, Table, Tone, words
from flopbench.results.frame import IMAGES
from flopbench.results.percentiles import PERCENTILES, samples_needed

if TYPE_CHECKING:
    import pandas as pd


_TONES: dict[str, Tone] = {"faster": "good", "level": "unsure", "slower": "bad"}


def _promised(header: str, key: str, write: Callable[[float], str], rank: int = 1) -> Column:
    """A figure that rests on the MACs of both models, marked where operators were left out of them."""

    def found(row: Row) -> tuple[float, Row] | None:
        return None if text.is_missing(row[key]) else (row[key], row)

    return Column(header, found, lambda found: about(found[1], write(found[0])), rank=rank)


def _macs(row: Row) -> tuple[float, str] | None:
    return None if row["macs"] is None else (row["macs"], row["uncounted"])


MODEL_COLUMNS = (
    words("model", "label"),
    *(words(axis.label, axis.name) for axis in TOLD_APART),
    Column("parameters", write=text.count),
    Column("MACs", _macs, lambda found: f"{'≥' if found[1] else ''}{text.count(found[0])}"),
    _promised("MACs ratio", "macs_ratio", text.factor),
    Column("invariance error", "invariance_error", text.error),
    Column("difference", "difference", text.error),
)

_WHERE_COLUMNS = (
    words("run"),
    *(Column(axis.label, axis.name, numeric=axis.numeric, rank=KEY) for axis in AXES.values()),
    words("called with", "inputs", rank=8, wraps=True),
)

_WHAT_COLUMNS = (
    words("candidate", "pair_name"),
    *_WHERE_COLUMNS,
)


def _memory(header: str, prefix: str = "") -> Column:
    """Peak memory, and how it was found if not by the allocator in a call like those that were timed."""

    def found(row: Row) -> tuple[float, str | None] | None:
        peak = row[f"{prefix}peak_bytes"]
        return None if text.is_missing(peak) else (peak, row[f"{prefix}peak_source"])

    def write(found: tuple[float, str | None]) -> str:
        peak, source = found
        return text.size(peak) if source in (None, "allocator") else f"{text.size(peak)} ({source})"

    return Column(header, found, write, rank=5)


CELL_COLUMNS = (
    *_WHAT_COLUMNS,
    Column(
        "speed-up\n[95 % interval]",
        lambda row: (row["speedup"], row["speedup_low"], row["speedup_high"]),
        lambda values: text.interval(*values),
        # Colour only where the interval says something, and nothing stands against it.
        tone=lambda row: "unsure" if row["flags"] else _TONES[verdict(row)],
    ),
    words("flags", rank=7, wraps=True),
    words("ran", lambda row: _ran(row), rank=2),
    _promised("realised\nshare", "realised_share", text.percent, rank=2),
    _promised("MACs\nratio", "macs_ratio", text.factor, rank=6),
    Column("time\nbaseline", "baseline_seconds", text.seconds, rank=3),
    Column("time\ncandidate", "candidate_seconds", text.seconds, rank=3),
    Column("images/s\nbaseline", "baseline_throughput", text.significant, rank=4),
    Column("images/s\ncandidate", "candidate_throughput", text.significant, rank=4),
    Column("images/s/W\nbaseline", "baseline_images_per_joule", text.significant, rank=6),
    Column("images/s/W\ncandidate", "candidate_images_per_joule", text.significant, rank=6),
    _memory("memory\nbaseline", "baseline_"),
    _memory("memory\ncandidate", "candidate_"),
    words("baseline", "baseline_label", rank=8),
)

UNCOUNTED_COLUMNS = (
    words("model", "label"),
    words("operators, and how often each came", "uncounted", rank=1, wraps=True),
)


def _latency(percentile: int, rank: int) -> Column:
    """A percentile with its interval, or how many calls it takes to have one."""
    key = f"latency_p{percentile}"

    def write(found: tuple[float | None, float, float]) -> str:
        estimate, *ends = found
        if estimate is None:
            return f"needs {samples_needed(percentile)} calls"
        return text.seconds_interval(estimate, *ends)

    def ends(row: Row) -> tuple[float | None, float, float]:
        return row[key], row[f"{key}_low"], row[f"{key}_high"]

    return Column(f"latency p{percentile}\n[95 % interval]", ends, write, rank=rank)


SERVING_COLUMNS = (
    words("model", "label"),
    # They are figures of forward passes alone.
    *(column for column in _WHERE_COLUMNS if column.header != "pass"),
    *(_latency(percentile, rank) for rank, percentile in enumerate(PERCENTILES, 1)),
    Column("calls", "latency_calls", text.exact),
    Column("first\ncall", "first_call_seconds", text.seconds, rank=4),
    Column("load", "load_seconds", text.seconds, rank=4),
    Column("size\non disk", "disk_bytes", text.size, rank=4),
    _memory("peak\nmemory"),
    Column("J\nper call", "joules", text.significant, rank=5),
    words("why not loaded", "load_problem", rank=6, wraps=True),
)

ENGINE_COLUMNS = (
    words("model", "label"),
    *(column for column in _WHERE_COLUMNS if column.header not in ("pass", AXES["impl"].label)),
    words("exported"),
    words("version", "engine_version", rank=5),
    words("computed by", "provider", rank=5),
    Column("threads", "engine_threads", text.exact, rank=5),
    Column("export", "export_seconds", text.seconds),
    Column("load", "load_seconds", text.seconds),
    Column("first\ncall", "first_call_seconds", text.seconds),
    Column("size\non disk", "disk_bytes", text.size),
    Column("deviation\nfrom torch", "agreement", text.error, rank=2),
    Column("invariance error\nin the engine", "invariance_in_cell", text.error, rank=2),
)

RAN_COLUMNS = (
    words("model", "label"),
    words("pass"),
    words("mode"),
    words("asked for", "impl"),
    words("what its operations ran as", "kernels", rank=1, wraps=True),
)

FAILURE_COLUMNS = (
    *_WHAT_COLUMNS,
    words("status"),
    words("reason", rank=1, wraps=True),
)

NOTHING = "No cell has a speed-up."

# What every cell of most runs has in common; shown only where it differs within a table.
_OFTEN_THE_SAME = {"run", *(axis.label for axis in AXES.values() if not axis.always_shown)}


def format_frame(frame: "pd.DataFrame", fmt: str) -> str:
    """A frame as text for a pipe, with every column and row.

    Raises:
        FlopbenchError: a format that is neither json nor csv.
    """
    if fmt == "json":
        return frame.to_json(orient="records", indent=1, force_ascii=False, double_precision=15) or "[]"
    if fmt == "csv":
        return frame.map(text.defused).to_csv(index=False, lineterminator="\n").rstrip("\n")
    raise FlopbenchError(f"--format {fmt!r}: choose one of {', '.join(FORMATS)}")


def runs_markdown(cells: Rows) -> str:
    """The readable table of cells with a speed-up, or that there is none."""
    return runs_table("", cells, CELL_COLUMNS).markdown() or NOTHING


def runs_table(title: str, rows: Rows, columns: Sequence[Column]) -> Table:
    """A table without what all its rows have in common, or a candidate's label says already.

    Figures of images are of samples where a network has inputs of its own.
    """
    items = items_of(rows)

    def says_something(column: Column) -> bool:
        if column.key == "inputs":
            return any(row["inputs"] != IMAGES for row in rows)
        if column.header in _OFTEN_THE_SAME:
            return len({column.show(row) for row in rows} - {text.MISSING}) > 1
        if column.header == "baseline":
            # What all are compared with stands first among the models, where there is a table of them.
            one_for_all = title and len({row["baseline_label"] for row in rows}) == 1
            told = (baseline_is_told(row) or row["pair_name"] != row["candidate_label"] for row in rows)
            return not (one_for_all or all(told))
        return True

    shown = filter(says_something, columns)
    return Table(title, [replace(c, header=c.header.replace("images", items)) for c in shown], rows)


def _ran(row: Row) -> str | None:
    """`cpp, torch`: what the operations of both models ran as; of each where that differs."""
    kernels = [row["baseline_kernels"], row["candidate_kernels"]]
    if None in kernels:
        return None
    names = [", ".join(sorted(part.partition(":")[0] for part in ran.split("; ") if part)) for ran in kernels]
    return names[1] if names[0] == names[1] else " | ".join(name or text.MISSING for name in names)


def summary(rows: Rows) -> list[Table | str]:
    """What a run ends with in the terminal: models, measurements, and the cells without a speed-up."""
    cells = measured(rows)
    found = run_tables(rows, cells, "Speed-ups (time of the baseline / time of the candidate)")
    return [*found] if cells else [NOTHING, *found]


def run_tables(rows: Rows, cells: Rows, speed_ups: str = "Speed-ups") -> list[Table]:
    """The tables that have a row, of all cells (`rows_of`) and of those with a speed-up (`measured`)."""
    sections = (
        ("Models", models(rows), MODEL_COLUMNS),
        (
            "Left out of the MACs (≥) and of their ratios (≈)",
            uncounted(rows),
            UNCOUNTED_COLUMNS,
        ),
        (speed_ups, cells, CELL_COLUMNS),
        ("Serving: calls one at a time, and starting", serving(rows), SERVING_COLUMNS),
        ("Engines: from the network to its first call", deployed(rows), ENGINE_COLUMNS),
        ("What ran, as seen in the first calls", what_ran(cells), RAN_COLUMNS),
        ("Cells without a speed-up", failures(rows), FAILURE_COLUMNS),
    )
    return [runs_table(title, content, columns) for title, content, columns in sections if content]
