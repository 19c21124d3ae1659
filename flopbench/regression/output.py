"""A comparison for people and machines: terminal, Markdown, JSON, JUnit XML, GitHub annotations."""

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

from flopbench.regression.decision import Change, Comparison, Outcome, worst
from flopbench.report import text
from flopbench.report.table import Column, Table, Tone, words
from flopbench.results import write_atomically

_TONES: dict[Outcome, Tone] = {
    Outcome.FAIL: "bad",
    Outcome.MISSING: "bad",
    Outcome.AMBIGUOUS: "unsure",
    Outcome.PASS: "good",
}
_SEVERITY = list(Outcome)
_MARKS = {
    Outcome.FAIL: "❌ fail",
    Outcome.MISSING: "❓ missing",
    Outcome.AMBIGUOUS: "⚠️ ambiguous",
    Outcome.PASS: "✅ pass",
}


def summary(comparison: Comparison) -> str:
    """One line: the outcome and how many figures had which."""
    counts = ", ".join(
        f"{len(comparison.of(outcome))} {outcome}" for outcome in reversed(Outcome) if comparison.of(outcome)
    )
    return f"{comparison.outcome.upper()}: {comparison.base} → {comparison.new}: {counts or 'no figures'}"


def table(changes: Iterable[Change]) -> Table:
    """A row a figure; the cells with failures first."""
    subjects: dict[str, list[Change]] = {}
    for change in changes:
        subjects.setdefault(change.subject, []).append(change)
    ranked = sorted(subjects.values(), key=lambda own: -_SEVERITY.index(worst(c.outcome for c in own)))
    columns = (
        words("figure", _figure),
        Column("before", lambda change: _before_and_now(change)[0], rank=3),
        Column("now", lambda change: _before_and_now(change)[1], rank=3),
        Column("worse by", _worse_by, rank=2),
        Column("tolerance", _tolerance, rank=4),
        Column("outcome", numeric=False, tone=lambda change: _TONES[change.outcome]),
    )
    return Table("", columns, [change for own in ranked for change in own], group=words("cell", "subject"))


def markdown(comparison: Comparison, *, title: str = "flopbench") -> str:
    """A section for a job summary or a pull request: what is not a pass in full, the passes folded away."""
    plain = text.markdown_escape
    lines = [f"## {plain(title)}: {_MARKS[comparison.outcome]}", "", plain(summary(comparison)), ""]
    loud = _sorted(comparison, (Outcome.FAIL, Outcome.MISSING, Outcome.AMBIGUOUS))
    if loud:
        lines += [table(loud).markdown(), ""]
        lines += [f"- {plain(change.title)}: {plain(change.note)}" for change in loud if change.note]
        lines.append("")
    if quiet := comparison.of(Outcome.PASS):
        summary_line = f"<details><summary>{len(quiet)} passed</summary>"
        lines += [summary_line, "", table(quiet).markdown(), "", "</details>", ""]
    lines += [f"- {plain(note)}" for note in comparison.notes]
    lines += [
        "",
        "Worse by: + is slower, larger or more; fail when the whole interval lies beyond the tolerance.",
    ]
    return "\n".join(lines) + "\n"


def junit(comparison: Comparison, *, name: str = "flopbench") -> str:
    """JUnit XML with a test case per figure.

    An ambiguous one is skipped, which counts as passed nowhere; a missing one is an error.
    """
    changes = comparison.changes
    suite = ET.Element(
        "testsuite",
        name=text.printable(name),
        tests=str(len(changes)),
        failures=str(len(comparison.of(Outcome.FAIL))),
        skipped=str(len(comparison.of(Outcome.AMBIGUOUS))),
        errors=str(len(comparison.of(Outcome.MISSING))),
    )
    for change in changes:
        figure = " ".join(filter(None, (change.metric, change.label)))
        # XML has no way to write control characters, not even escaped.
        subject, figure = map(text.printable, (change.subject, figure))
        case = ET.SubElement(suite, "testcase", classname=subject, name=figure)
        if change.outcome is Outcome.FAIL:
            ET.SubElement(case, "failure", message=describe(change))
        elif change.outcome is Outcome.MISSING:
            ET.SubElement(case, "error", message=describe(change))
        elif change.outcome is Outcome.AMBIGUOUS:
            ET.SubElement(case, "skipped", message=f"ambiguous: {describe(change)}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def annotations(comparison: Comparison) -> list[str]:
    """GitHub workflow commands: errors for what failed or is missing, warnings for what is ambiguous."""
    kinds = {Outcome.FAIL: "error", Outcome.MISSING: "error", Outcome.AMBIGUOUS: "warning"}
    lines = [
        f"::{kinds[change.outcome]} title={_escape(change.title, colons=True)}::{_escape(describe(change))}"
        for change in _sorted(comparison, kinds)
    ]
    return lines + [f"::notice title=flopbench::{_escape(note)}" for note in comparison.notes]


def describe(change: Change) -> str:
    """A change in one line, without control characters."""
    figures = []
    if change.base is not None:
        figures.append(" → ".join(_before_and_now(change)))
    if change.change is not None:
        figures.append(f"worse by {_worse_by(change)}, tolerance {_tolerance(change)}")
    said = "; ".join(filter(None, (", ".join(figures), text.printable(change.note))))
    return ": ".join(filter(None, (text.printable(change.title), said)))


def write_files(comparison: Comparison, *, out: Path | None, junit_file: Path | None, title: str) -> None:
    """Write `comparison.json` and `comparison.md` into `out` and the JUnit file, each where asked for."""
    if out is not None:
        write_atomically(out / "comparison.json", dumps(comparison))
        write_atomically(out / "comparison.md", markdown(comparison, title=title))
    if junit_file is not None:
        write_atomically(junit_file, junit(comparison, name=title))


def dumps(comparison: Comparison) -> str:
    """The comparison as JSON text."""
    return json.dumps(comparison.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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
    loudest = sorted(comparison.changes, key=lambda change: -_SEVERITY.index(change.outcome))
    return [change for change in loudest if change.outcome in wanted]


def _figure(change: Change) -> str:
    return " ".join(filter(None, (change.metric.replace("_", " "), change.label)))


def _before_and_now(change: Change) -> tuple[str, str]:
    before, now = (text.metric(change.metric, value) for value in (change.base, change.new))
    alike = before == now and change.base != change.new
    return (text.exact(change.base), text.exact(change.new)) if alike else (before, now)


def _worse_by(change: Change) -> str:
    if change.change is None:
        return ""
    by = text.change(change.change.estimate)
    if change.change.low == change.change.high:
        return by
    return f"{by} [{text.change(change.change.low)}, {text.change(change.change.high)}]"


def _tolerance(change: Change) -> str:
    return text.percent(change.tolerance, 1) if change.change else ""


def _escape(text: str, *, colons: bool = False) -> str:
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return escaped.replace(":", "%3A").replace(",", "%2C") if colons else escaped
