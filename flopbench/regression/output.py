"""A comparison for people and machines: terminal, Markdown, JSON, JUnit XML, GitHub annotations."""

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flopbench.regression.decision import Change, Comparison, Outcome
from flopbench.report import text
from flopbench.results import write_atomically

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {Outcome.FAIL: "bold red", Outcome.AMBIGUOUS: "yellow", Outcome.PASS: "green"}
_MARKS = {Outcome.FAIL: "❌ fail", Outcome.AMBIGUOUS: "⚠️ ambiguous", Outcome.PASS: "✅ pass"}
_HEADER = ("figure", "before", "now", "worse by", "tolerance", "outcome")


def summary(comparison: Comparison) -> str:
    """One line: the outcome and how many figures had which."""
    counts = ", ".join(
        f"{len(comparison.of(outcome))} {outcome}" for outcome in reversed(Outcome) if comparison.of(outcome)
    )
    return f"{comparison.outcome.upper()}: {comparison.base} → {comparison.new}: {counts or 'no figures'}"


def table(comparison: Comparison) -> "Table":
    """A rich table, a section a cell, those with failures first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in _HEADER:
        shown.add_column(name, justify="left" if name in ("figure", "outcome") else "right")
    for subject, changes in _by_subject(comparison.changes).items():
        # Text, not markup: an id may hold brackets.
        shown.add_row(Text(subject, style="bold"))
        for change in changes:
            figure, *cells = _row(change)
            outcome = Text(change.outcome, style=_STYLES[change.outcome])
            shown.add_row(Text(f"  {figure}"), *map(Text, cells), outcome)
        shown.add_section()
    return shown


def markdown(comparison: Comparison, *, title: str = "flopbench") -> str:
    """A section for a job summary or a pull request: what is not a pass in full, the passes folded away."""
    lines = [f"## {title}: {_MARKS[comparison.outcome]}", "", summary(comparison), ""]
    loud = _sorted(comparison, (Outcome.FAIL, Outcome.AMBIGUOUS))
    if loud:
        lines += [*_markdown_rows(loud), ""]
        lines += [f"- {change.title}: {change.note}" for change in loud if change.note]
        lines.append("")
    quiet = _sorted(comparison, (Outcome.PASS,))
    if quiet:
        lines += [
            f"<details><summary>{len(quiet)} passed</summary>",
            "",
            *_markdown_rows(quiet),
            "",
            "</details>",
            "",
        ]
    lines += [f"- {note}" for note in comparison.notes]
    lines += [
        "",
        "Worse by: + is slower, larger or more; fail when the whole interval lies beyond the tolerance.",
    ]
    return "\n".join(lines) + "\n"


def junit(comparison: Comparison, *, name: str = "flopbench") -> str:
    """JUnit XML with a test case a figure; an ambiguous one is skipped, which counts as passed nowhere."""
    changes = comparison.changes
    suite = ET.Element(
        "testsuite",
        name=name,
        tests=str(len(changes)),
        failures=str(len(comparison.of(Outcome.FAIL))),
        skipped=str(len(comparison.of(Outcome.AMBIGUOUS))),
        errors="0",
    )
    for change in changes:
        figure = " ".join(filter(None, (change.metric, change.label)))
        case = ET.SubElement(suite, "testcase", classname=change.subject, name=figure)
        if change.outcome is Outcome.FAIL:
            ET.SubElement(case, "failure", message=describe(change))
        elif change.outcome is Outcome.AMBIGUOUS:
            ET.SubElement(case, "skipped", message=f"ambiguous: {describe(change)}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def annotations(comparison: Comparison) -> list[str]:
    """GitHub workflow commands: an error a failure, a warning an ambiguous figure, a notice a note."""
    kinds = {Outcome.FAIL: "error", Outcome.AMBIGUOUS: "warning"}
    lines = [
        f"::{kinds[change.outcome]} title={_escape(change.title, colons=True)}::{_escape(describe(change))}"
        for change in _sorted(comparison, kinds)
    ]
    return lines + [f"::notice title=flopbench::{_escape(note)}" for note in comparison.notes]


def describe(change: Change) -> str:
    """A change in one line."""
    if change.change is None:
        return f"{change.title}: {change.note}" if change.note else change.title
    _, before, now, by, tolerance = _row(change)
    line = f"{change.title}: {before} → {now}, worse by {by}, tolerance {tolerance}"
    return line + (f"; {change.note}" if change.note else "")


def write_files(comparison: Comparison, *, out: Path | None, junit_file: Path | None, title: str) -> None:
    """Write `comparison.json` and `comparison.md` into `out` and the JUnit file, each where asked for."""
    if out is not None:
        write_atomically(out / "comparison.json", dumps(comparison))
        write_atomically(out / "comparison.md", markdown(comparison, title=title))
    if junit_file is not None:
        write_atomically(junit_file, junit(comparison, name=title))


def dumps(comparison: Comparison) -> str:
    """The comparison as JSON text."""
    return json.dumps(comparison.to_json(), indent=1, ensure_ascii=False) + "\n"


def on_github() -> bool:
    """Whether this runs in a GitHub workflow."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def write_job_summary(content: str) -> None:
    """Append Markdown to the summary of the GitHub job, if this is one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(content)


def _sorted(comparison: Comparison, only: Iterable[Outcome]) -> list[Change]:
    wanted = set(only)
    order = list(reversed(Outcome))
    return sorted(
        (change for change in comparison.changes if change.outcome in wanted),
        key=lambda change: order.index(change.outcome),
    )


def _by_subject(changes: Iterable[Change]) -> dict[str, list[Change]]:
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(change.subject, []).append(change)
    order = list(reversed(Outcome))
    ranked = sorted(groups.items(), key=lambda group: min(order.index(change.outcome) for change in group[1]))
    return dict(ranked)


def _markdown_rows(changes: Iterable[Change]) -> list[str]:
    lines = ["| cell | " + " | ".join(_HEADER) + " |", "|---|---|--:|--:|--:|--:|---|"]
    for change in changes:
        cells = (f"`{change.subject}`", *_row(change), _MARKS[change.outcome])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _row(change: Change) -> tuple[str, str, str, str, str]:
    figure = " ".join(filter(None, (change.metric.replace("_", " "), change.label)))
    before, now = (figure_text(change.metric, value) for value in (change.base, change.new))
    if before == now and change.base is not None and change.new is not None and change.base != change.new:
        before, now = f"{change.base:,.0f}", f"{change.new:,.0f}"
    if change.change is None:
        return figure, before, now, "", ""
    by = f"{change.change.estimate:+.1%}" if change.change.estimate else "0 %"
    if change.p_value is not None:
        by += f" [{change.change.low:+.1%}, {change.change.high:+.1%}]"
    return figure, before, now, by, f"{change.tolerance:.1%}"


def figure_text(metric: str, value: float | None) -> str:
    """A figure in its unit."""
    if value is None:
        return "–"
    if metric == "speedup":
        return f"{value:.3f}×"
    if metric == "throughput":
        return f"{value:.4g} images/s"
    if metric == "seconds":
        return text.seconds(value)
    if metric in ("peak_memory", "bytes_written"):
        return text.size(value)
    if metric in ("invariance_error", "outputs"):
        return f"{value:.1e}" if value else "0"
    return text.count(value) if value >= 100_000 else f"{value:,.0f}"


def _escape(text: str, *, colons: bool = False) -> str:
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return escaped.replace(":", "%3A").replace(",", "%2C") if colons else escaped
