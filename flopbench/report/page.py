"""What reports consist of, and how they become files: Markdown, a self-contained page, data, pictures."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopbench.errors import FlopbenchError
from flopbench.report import text
from flopbench.report.findings import Answer
from flopbench.report.table import Table, words
from flopbench.results import Environment, Flag, write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment as Templates

    from flopbench.report.pictures import Picture


@dataclass(frozen=True)
class Origin:
    """Where figures are from: the id and time, what was run (`suite vit (…)`), by which command, on what."""

    id: str
    created: str
    of: str
    command: str
    environment: Environment


@dataclass(frozen=True)
class FlagGroup:
    """One kind of flag with the remedies and what has it: cells, or what `thing` says."""

    kind: str
    remedy: str
    cells: tuple[tuple[str, str], ...]
    """(cell, message); a cell of which both models have the flag is there twice."""
    thing: str = "cell"

    @property
    def counted(self) -> str:
        """`1 cell`, `2 cells`."""
        return text.counted(len({cell for cell, _ in self.cells}), self.thing)


@dataclass(frozen=True)
class Page:
    """What a report says, in the order of reading.

    `answers` come first; `missing` are sentences, in Markdown, for pictures that there is no data for;
    `legend` says what the figures of the tables are.
    """

    title: str
    origins: Sequence[Origin]
    answers: Sequence[Answer]
    tables: Sequence[Table]
    pictures: "Sequence[Picture]"
    legend: str
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()
    flags: Sequence[FlagGroup] = ()


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


def write_page(page: Page, frame: "pd.DataFrame", out: Path) -> ReportFiles:
    """Write a report into a folder of its own under `out`, with its figures as data.

    The folder is called after what the report is of, so that a report is replaced by its own later version
    and by nothing else. The same page gives the same bytes.
    """
    from flopbench.report.pictures.style import dark_css
    from flopbench.report.tables import format_frame

    folder = out / folder_name([origin.id for origin in page.origins])
    pictures = page.pictures
    files = ReportFiles(
        markdown=folder / "report.md",
        html=folder / "report.html",
        csv=folder / "table.csv",
        json=folder / "table.json",
        pictures=tuple(folder / f"{picture.name}.{kind}" for picture in pictures for kind in ("png", "svg")),
        answers=tuple(page.answers),
    )
    write_atomically(files.csv, format_frame(frame, "csv") + "\n")
    write_atomically(files.json, format_frame(frame, "json") + "\n")
    for picture in pictures:
        write_atomically(folder / f"{picture.name}.png", picture.png)
        write_atomically(folder / f"{picture.name}.svg", picture.svg)
    context = {"page": page, "dark_css": dark_css()}
    write_atomically(files.markdown, markdown_templates().get_template("report.md.j2").render(context))
    write_atomically(files.html, html_templates().get_template("report.html.j2").render(context))
    return files


def checked_ids(ids: Sequence[str], thing: str = "run") -> None:
    """See that what has these ids can stand side by side.

    Raises:
        FlopbenchError: there is none, or two have the same id.
    """
    if not ids:
        raise FlopbenchError(f"a report needs at least one {thing}")
    if len(set(ids)) < len(ids):
        raise FlopbenchError(f"the {thing}s of a report must differ, got {', '.join(ids)}")


def folder_name(ids: Sequence[str]) -> str:
    """A folder for what has these ids: safe as a file name whatever they hold, and not too long."""
    name = "+".join(re.sub(r"[^\w.-]+", "_", run).lstrip(".") or "run" for run in ids)
    if len(name) <= 120:
        return name
    return f"{name[:100]}-{hashlib.sha256('+'.join(ids).encode()).hexdigest()[:12]}"


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
    "engines": "engines",
}


def environment_table(origins: Sequence[Origin]) -> Table:
    """What is known of the machines and the software, a column per run."""
    rows = []
    for field, name in _ENVIRONMENT.items():
        values = [getattr(origin.environment, field) for origin in origins]
        show = text.size if field.endswith("_bytes") else _engines if field == "engines" else text.printable
        known = [None if value in (None, {}) else show(value) for value in values]
        if any(known):
            rows.append((name, *known))
    columns = (words("what"), *(words(origin.id, f"run {origin.id}") for origin in origins))
    return Table.of("Environment", columns, rows)


def _engines(versions: dict[str, str]) -> str:
    """`onnxruntime 1.30.0, openvino 2026.0.0`."""
    return text.printable(", ".join(f"{name} {version}" for name, version in versions.items()))


def flag_groups(flagged: Iterable[tuple[str, Iterable[Flag]]], thing: str = "cell") -> list[FlagGroup]:
    """The flags of what is told by its name, by kind and remedy, the most frequent first."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for where, flags in flagged:
        for flag in flags:
            groups.setdefault((flag.kind, flag.remedy), []).append((where, flag.message))
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [FlagGroup(kind, remedy, tuple(cells), thing) for (kind, remedy), cells in ordered]


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
