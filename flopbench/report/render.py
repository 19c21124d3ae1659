"""The report's files: Markdown, one self-contained page, tables as data, pictures."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopbench.errors import FlopbenchError
from flopbench.report import tables, text
from flopbench.report.cells import Rows, measured, rows_of, serving
from flopbench.report.findings import Answer, answer
from flopbench.report.table import Table, words
from flopbench.results import POWER_LIMIT, CellRecord, Run, RunInfo, to_frame, write_atomically

if TYPE_CHECKING:
    from jinja2 import Environment as Templates

    from flopbench.report.pictures import Picture


@dataclass(frozen=True)
class ReportFiles:
    """Where a report's files are, and what it says."""

    markdown: Path
    html: Path
    csv: Path
    json: Path
    pictures: tuple[Path, ...]
    answers: tuple[Answer, ...]
    """What it says of each run."""


@dataclass(frozen=True)
class FlagGroup:
    """One kind of flag with the remedies and the cells that have it."""

    kind: str
    remedy: str
    cells: tuple[tuple[str, str], ...]
    """(cell, message); a cell of which both models have the flag is there twice."""

    @property
    def counted(self) -> str:
        """`1 cell`, `2 cells`."""
        return text.counted(len({cell for cell, _ in self.cells}), "cell")


def render_report(runs: Sequence[Run], out: Path) -> ReportFiles:
    """Write the report of one run, or of several side by side, into a folder of its own under `out`.

    The folder is called after the run (several: after all of them), so that a report is replaced by
    its own later version and by nothing else. The same runs give the same bytes.

    Raises:
        FlopbenchError: no run was given, or two with the same id.
    """
    from flopbench.report.pictures import draw_all
    from flopbench.report.pictures.style import dark_css

    folder = out / folder_name(checked_ids(runs))
    records = {run.info.id: run.records() for run in runs}
    frame = to_frame(runs)
    rows = rows_of(frame)
    pictures, missing = draw_all(runs, rows)
    answers = answers_of(runs, rows)
    context = _context(runs, records, rows, pictures, missing) | {"answers": answers}
    files = ReportFiles(
        markdown=folder / "report.md",
        html=folder / "report.html",
        csv=folder / "table.csv",
        json=folder / "table.json",
        pictures=tuple(folder / f"{picture.name}.{kind}" for picture in pictures for kind in ("png", "svg")),
        answers=tuple(answers),
    )
    write_atomically(files.csv, tables.format_frame(frame, "csv") + "\n")
    write_atomically(files.json, tables.format_frame(frame, "json") + "\n")
    for picture in pictures:
        write_atomically(folder / f"{picture.name}.png", picture.png)
        write_atomically(folder / f"{picture.name}.svg", picture.svg)
    write_atomically(files.markdown, markdown_templates().get_template("report.md.j2").render(context))
    write_atomically(
        files.html, html_templates().get_template("report.html.j2").render(context | {"dark_css": dark_css()})
    )
    return files


def checked_ids(runs: Sequence[Run]) -> list[str]:
    """The ids of runs that can stand side by side.

    Raises:
        FlopbenchError: no run was given, or two with the same id.
    """
    ids = [run.info.id for run in runs]
    if not runs:
        raise FlopbenchError("a report needs at least one run")
    if len(set(ids)) < len(ids):
        raise FlopbenchError(f"the runs of a report must differ, got {', '.join(ids)}")
    return ids


def folder_name(ids: Sequence[str]) -> str:
    """A folder for runs with these ids: safe as a file name whatever they hold, and not too long."""
    name = "+".join(re.sub(r"[^\w.-]+", "_", run).lstrip(".") or "run" for run in ids)
    if len(name) <= 120:
        return name
    return f"{name[:100]}-{hashlib.sha256('+'.join(ids).encode()).hexdigest()[:12]}"


def answers_of(runs: Sequence[Run], rows: Rows) -> list[Answer]:
    """What each run says, of all their cells (`cells.rows_of`)."""
    cells = measured(rows)
    answers = []
    for run in runs:
        own = [row for row in cells if row["run"] == run.info.id]
        total = len({row["cell"] for row in rows if row["run"] == run.info.id})
        answers.append(answer(run.info.id, run.info.environment.device_name, own, total))
    return answers


def _context(
    runs: Sequence[Run],
    records: dict[str, list[CellRecord]],
    rows: Rows,
    pictures: "Sequence[Picture]",
    missing: Sequence[str],
) -> dict[str, Any]:
    cells = measured(rows)
    return {
        "title": " · ".join(dict.fromkeys(run.info.title for run in runs)),
        "runs": [run.info for run in runs],
        "tables": [environment_table([run.info for run in runs]), *tables.run_tables(rows, cells)],
        "flags": flag_groups(records),
        "pictures": pictures,
        "missing": missing,
        "notes": [
            note for note in (_serving(rows), _beforehand(records), _at_the_power_limit(records)) if note
        ],
        "replicated": any(row["replicate"] for row in rows),
    }


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
        one for run in records.values() for one in run if one.cell.mode != "eager" and one.status == "ok"
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


_ENVIRONMENT = {
    "device_name": "device",
    "device_memory_bytes": "device memory",
    "driver": "driver",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "cpu": "CPU",
    "cores": "cores",
    "threads": "threads",
    "memory_bytes": "memory",
    "allocator": "allocator",
    "os": "system",
    "python": "Python",
    "torch": "torch",
    "triton": "Triton",
    "cpu_capability": "vector instructions",
    "compiler": "C++ compiler",
    "kernels": "kernels' sources",
    "fvcore": "fvcore",
    "flopbench": "flopbench",
    "commit": "commit",
}


def environment_table(runs: Sequence[RunInfo]) -> Table:
    """What is known of the machines and the software, a column per run."""
    rows = []
    for field, name in _ENVIRONMENT.items():
        values = [getattr(run.environment, field) for run in runs]
        show = text.size if field.endswith("_bytes") else text.printable
        if any(value is not None for value in values):
            rows.append((name, *(None if value is None else show(value) for value in values)))
    columns = (words("what"), *(words(run.id, f"run {run.id}") for run in runs))
    return Table.of("Environment", columns, rows)


def flag_groups(records: dict[str, list[CellRecord]]) -> list[FlagGroup]:
    """The flags of all cells by kind and remedy, the most frequent first."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for run, cells in records.items():
        prefix = f"{run}: " if len(records) > 1 else ""
        for record in cells:
            replicate = f" (replicate {record.replicate})" if record.replicate else ""
            for flag in record.flags:
                where = prefix + record.cell.id + replicate
                groups.setdefault((flag.kind, flag.remedy), []).append((where, flag.message))
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [FlagGroup(kind, remedy, tuple(cells)) for (kind, remedy), cells in ordered]


def _templates(package: str, **options: Any) -> "Templates":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )


def html_templates() -> "Templates":
    """The room's templates, escaped for HTML; `| backticks` makes code of what stands in those."""
    from markupsafe import Markup, escape

    templates = _templates("flopbench.report", autoescape=True)
    templates.filters["backticks"] = lambda value: Markup(
        re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(value)))
    )
    return templates


def markdown_templates(package: str = "flopbench.report") -> "Templates":
    """A room's templates, escaped for Markdown; `| safe` marks what is Markdown already."""
    from markupsafe import Markup

    templates = _templates(
        package, finalize=lambda value: value if isinstance(value, Markup) else text.markdown_escape(value)
    )
    templates.filters["fenced"] = lambda value: Markup(text.fenced(text.printable(value), "sh"))
    templates.filters["code"] = lambda value: Markup(text.code(value))
    return templates
