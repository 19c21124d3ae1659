"""The one table, with columns of its own."""

import csv
import io
import json
from functools import partial

import pytest
from rich.console import Console

from flopbench.report import text
from flopbench.report.table import Column, Table, words

TABLE = Table.of(
    "Times",
    (
        words("name"),
        Column("time\nbefore", "before", text.seconds),
        Column("time\nnow", "now", text.seconds),
        Column("bytes", write=text.size, rank=None),
        Column("never", rank=2),
        words("why", rank=3, wraps=True),
    ),
    [
        ("m1", "a|[b]", 0.012, 0.011, 7, None, "a sentence that is far too long for the narrowest terminals"),
        ("m2", "c", None, 1.5, 8, None, "short"),
        ("m1", "d", 0.5, 0.25, 9, None, ""),
    ],
    group=words("machine"),
)


def printed(width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(TABLE)
    return capture.get().replace("\u00a0", " ")


def test_data_are_raw_and_whole():
    rows = json.loads(TABLE.json(unit="s"))
    assert rows["unit"] == "s"
    assert rows["rows"][1] == {
        "machine": "m2",
        "name": "c",
        "before": None,
        "now": 1.5,
        "bytes": 8,
        "never": None,
        "why": "short",
    }
    assert TABLE.csv().splitlines()[::2] == ["machine,name,before,now,bytes,never,why", "m2,c,,1.5,8,,short"]


def test_markdown_escapes_everything_and_leaves_out_what_is_empty():
    header, rule, first, *_ = TABLE.markdown().splitlines()
    assert header == "| machine | name | time before | time now | why |"
    assert rule == "|---|---|---:|---:|---|"
    assert first.startswith(r"| m1 | a\|\[b\] | 12.0 ms | 11.0 ms |")
    assert Table("", TABLE.columns, []).markdown() == ""


def test_groups_have_headings_and_columns_stay_aligned():
    lines = [line.rstrip() for line in printed(120).splitlines()]
    assert [line for line in lines if line in ("m1", "m2")] == ["m1", "m2"]
    assert lines.index("m2") > next(i for i, line in enumerate(lines) if line.startswith(" d "))
    assert len({line.index(" ms") for line in lines if " ms" in line and "12.0" not in line}) == 1
    assert "never" not in printed(120)


@pytest.mark.parametrize("width", [120, 40, 30, 22])
def test_every_figure_is_there_within_the_width(width):
    shown = printed(width)
    assert max(map(len, shown.splitlines())) <= width
    for figure in ("12.0 ms", "11.0 ms", "1.50 s", "500 ms", "250 ms"):
        assert figure in shown
    assert "a|[b]" in shown


@pytest.mark.parametrize(("width", "name"), [(80, "n" * 60), (50, "nnnnnnnnnnnn…nnnnnnnnnnn")])
def test_a_long_name_is_cut_where_that_saves_tables(width, name):
    figures = (Column("before", write=text.seconds), Column("after", write=text.seconds))
    table = Table.of("Times", (words("name"), *figures), [("n" * 60, 1.0, 2.0)])
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(table)
    assert capture.get().count(name) == 1


def test_a_column_takes_an_item_an_attribute_or_what_it_is_told():
    half = Column("half", lambda row: row.imag / 2, partial(text.significant, digits=2))
    assert (half.value(4j), half.show(4j), half.key) == (2.0, "2.0", "half")
    assert Column("", "imag").value(4j) == 4
    assert Column("x").show({"x": float("nan")}) == text.MISSING
    assert Column("x").sort({"x": (1.5, 1.4, 1.6)}) == 1.5


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\tx"])
def test_no_cell_of_csv_is_a_formula(name: str):
    table = Table.of("", (words("name"), Column("change")), [(name, -0.5)])
    (row,) = csv.DictReader(io.StringIO(table.csv()))
    assert row == {"name": f"'{name}", "change": "-0.5"}
