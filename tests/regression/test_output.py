import io
import re
import xml.etree.ElementTree as ET

from rich.console import Console

from flopbench.regression.decision import Change, Comparison, Outcome, missing
from flopbench.regression.output import (
    annotations,
    describe,
    junit,
    markdown,
    summary,
    table,
    write_job_summary,
)
from flopbench.results import Interval


def _change(outcome, subject="vit_s16.flop/cpu/b1", **fields):
    values = {
        "metric": "speedup",
        "base": 1.5,
        "new": 1.4,
        "change": Interval(estimate=0.071, low=0.06, high=0.08),
        "tolerance": 0.03,
        "p_value": 0.0,
        **fields,
    }
    return Change(subject=subject, outcome=outcome, **values)


COMPARISON = Comparison(
    base="before",
    new="after",
    changes=(
        _change(Outcome.PASS, "timm:a[b]|c"),
        _change(Outcome.AMBIGUOUS, note="why"),
        _change(Outcome.FAIL, note="100 % worse,\nsecond: line"),
    ),
    notes=("a note",),
)


def test_summary_counts():
    assert summary(COMPARISON) == "FAIL: before → after: 1 fail, 1 ambiguous, 1 pass"
    assert "no figures" in summary(Comparison(base="a", new="b"))


def test_a_change_in_one_line():
    assert describe(COMPARISON.changes[0]) == (
        "timm:a[b]|c speedup: 1.500× → 1.400×, "
        "worse by +7.1\u00a0% [+6.0\u00a0%, +8.0\u00a0%], tolerance 3.0\u00a0%"
    )


def test_the_table_holds_ids_as_they_are_and_failures_first():
    console = Console(width=160, file=io.StringIO())
    with console.capture() as capture:
        console.print(table(COMPARISON.changes))
    text = capture.get()
    assert "timm:a[b]|c" in text
    assert text.index("vit_s16.flop/cpu/b1") < text.index("timm:a[b]|c")


def test_markdown_folds_the_passes_and_escapes_bars():
    text = markdown(COMPARISON)
    loud, quiet = text.split("<details>")
    assert "❌ fail" in loud
    assert "timm" not in loud
    assert r"timm:a\[b\]\|c" in quiet
    assert "- a note" in text


def test_nothing_from_outside_breaks_markdown_xml_or_a_line():
    foul = "a\nb|<b>\x1b[31m"
    changes = [_change(outcome, foul, note=foul, label=foul) for outcome in Outcome]
    comparison = Comparison(base=foul, new=foul, changes=tuple(changes), notes=(foul,))
    text = markdown(comparison, title=foul)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "\x1b" not in text
    assert not re.search(r"(?<!\\)<b>", text)
    suite = ET.fromstring(junit(comparison, name=foul))[0]
    assert len(suite) == len(Outcome)
    assert all("\n" not in line for line in map(describe, changes))


def test_junit_is_well_formed_and_counts():
    suite = ET.fromstring(junit(COMPARISON))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert (
        ET.fromstring(junit(Comparison(base="a", new="b", changes=(missing("c"),))))[0].get("errors") == "1"
    )
    (failure,) = suite.iter("failure")
    assert "1.500× → 1.400×" in failure.get("message", "")


def test_annotations_stay_on_one_line():
    error, warning, notice = annotations(COMPARISON)
    assert error.startswith("::error title=vit_s16.flop/cpu/b1 speedup::")
    assert "100 %25 worse, second: line" in error
    assert warning.startswith("::warning ")
    assert notice == "::notice title=flopbench::a note"


def test_figures_that_look_alike_are_shown_in_full():
    change = _change(Outcome.FAIL, metric="parameters", base=22_059_496, new=22_059_497, p_value=None)
    assert "22\u202f059\u202f496 → 22\u202f059\u202f497" in describe(change)


def test_the_job_summary_is_appended_to(tmp_path, monkeypatch):
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    write_job_summary("after\n")
    assert file.read_text() == "before\nafter\n"
