"""The report of runs: what of their cells goes where on its page."""

from collections.abc import Iterable, Iterator, Sequence

from flopbench.modes import COMPILING
from flopbench.report import tables
from flopbench.report.cells import Rows, measured, serving
from flopbench.report.findings import Answer, answer
from flopbench.report.page import (
    Origin,
    Page,
    environment_table,
    flag_groups,
)
from flopbench.results import POWER_LIMIT, CellRecord, Flag, Run, RunInfo

LEGEND = (
    "The speed-up is the time of the baseline over the time of the candidate. The realised share is "
    "(speed-up − 1) / (MACs ratio − 1). 1 MAC = 2 FLOPs."
)


def answers_of(runs: Sequence[Run], rows: Rows) -> list[Answer]:
    """What each run says, of all their cells (`cells.rows_of`)."""
    cells = measured(rows)
    answers = []
    for run in runs:
        own = [row for row in cells if row["run"] == run.info.id]
        total = len({row["cell"] for row in rows if row["run"] == run.info.id})
        answers.append(answer(run.info.id, run.info.environment.device_name, own, total))
    return answers


def page_of(runs: Sequence[Run], rows: Rows) -> Page:
    """The report of runs, of all their cells (`cells.rows_of`)."""
    from flopbench.report.pictures import draw_all, missing, of_runs

    records = {run.info.id: run.records() for run in runs}
    origins = [_origin(run.info) for run in runs]
    pictures = draw_all(lambda: of_runs(runs, rows))
    notes = [_serving(rows), _beforehand(records), _at_the_power_limit(records), _replicated(rows)]
    return Page(
        title=" · ".join(dict.fromkeys(run.info.title for run in runs)),
        origins=origins,
        answers=answers_of(runs, rows),
        tables=[environment_table(origins), *tables.run_tables(rows, measured(rows))],
        pictures=pictures,
        legend=LEGEND,
        missing=missing(pictures, rows),
        notes=[note for note in notes if note],
        flags=flag_groups(_flagged(records)),
    )


def _origin(run: RunInfo) -> Origin:
    return Origin(
        run.id, run.created, f"suite {run.suite} ({run.suite_digest})", run.command, run.environment
    )


def _flagged(records: dict[str, list[CellRecord]]) -> Iterator[tuple[str, Iterable[Flag]]]:
    """Each record's flags, by the name of its cell: with its run, where there are several."""
    for run, cells in records.items():
        prefix = f"{run}: " if len(records) > 1 else ""
        for record in cells:
            replicate = f" (replicate {record.replicate})" if record.replicate else ""
            yield prefix + record.cell.id + replicate, record.flags


def _serving(rows: Rows) -> str:
    """What serving figures are, in two sentences; empty where there are none."""
    if not serving(rows):
        return ""
    return (
        "Latencies are of calls one at a time, each waited for before the next, with intervals by order "
        "statistics; energy is of calls in a row. Loading goes from a file of the weights, just written and "
        "so in memory, to a network on the device; the baseline's first call comes before the candidate's, "
        "and kernels that both use are loaded in it."
    )


def _beforehand(records: dict[str, list[CellRecord]]) -> str:
    """What was compiled beforehand, in a sentence; empty where nothing was."""
    compiled = [
        one for run in records.values() for one in run if one.cell.mode in COMPILING and one.status == "ok"
    ]
    counts = [record.compiled_beforehand for record in compiled if record.compiled_beforehand]
    if not counts:
        return ""
    processes = " or ".join(map(str, sorted(set(counts))))
    return (
        f"Of {len(compiled)} compiled cells {len(counts)} were compiled beforehand, by {processes} processes "
        "side by side: their compile times are those of finding the code on disk."
    )


def _at_the_power_limit(records: dict[str, list[CellRecord]]) -> str:
    """In how many cells a GPU's power limit set its clocks, in a sentence; empty where in none."""
    states = [one.device_state for run in records.values() for one in run if one.status == "ok"]
    limited = sum(POWER_LIMIT in state.get("throttle_reasons", ()) for state in states)
    if not limited:
        return ""
    return (
        f"In {limited} of {len(states)} measured cells the GPU ran at its power limit, as it may under load: "
        "times are those of the clocks that each network has there."
    )


def _replicated(rows: Rows) -> str:
    """What the row of a replicated cell is, in a sentence; empty where none is."""
    if not any(row["replicate"] for row in rows):
        return ""
    return (
        "Replicates of a cell are one row: medians, the geometric mean of the speed-ups, and an interval "
        "from the lowest to the highest end of theirs."
    )
