"""Tables in terminals and pipes."""

import io
import json
from typing import Any

import pandas as pd
import pytest
from rich.console import Console, Group

from flopbench.errors import FlopbenchError
from flopbench.report.cells import failures, measured, models, rows_of, serving, what_ran
from flopbench.report.tables import CELL_COLUMNS, format_frame, runs_markdown, runs_table, summary
from flopbench.report.text import (
    change,
    code,
    count,
    coverage,
    exact,
    factor,
    fenced,
    interval,
    markdown_escape,
    metric,
    percent,
    seconds,
    seconds_interval,
    significant,
    size,
    times,
)
from flopbench.results import Flag, Serving, to_frame
from tests.support.runs import CPU, make_run


@pytest.fixture
def frame(tmp_path):
    run = make_run(
        tmp_path / "run",
        device=CPU,
        pairs=("vit_s16.flop", "vit_b16.hybrid"),
        batch_sizes=(1, 4),
        statuses={"*/b4/backward/*": "oom"},
        flags={"*/b1/backward/*": Flag(kind="noisy", message="wide", remedy="quiet")},
    )
    return to_frame([run])


def printed(renderable, width, **console):
    file = io.StringIO()
    Console(file=file, width=width, **console).print(renderable)
    return file.getvalue()


def test_wide_terminal_shows_every_figure(frame):
    text = printed(Group(*summary(rows_of(frame))), 220)
    for word in ("22.1\u00a0M", "2.51\u00a0G", "1.83", "3.0e-06", "noisy", "oom", "out of memory"):
        assert word in text, word
    for header in ("parameters", "MACs", "time", "images/s", "speed-up", "realised", "memory", "invariance"):
        assert header in text, header


@pytest.mark.parametrize("width", [220, 140, 100, 80, 60, 36])
def test_no_line_is_wider_than_the_terminal_and_the_speedup_stays(frame, width):
    text = printed(Group(*summary(rows_of(frame))), width)
    assert max(map(len, text.splitlines())) <= width
    cells = measured(rows_of(frame))
    for row in cells:
        assert interval(row["speedup"], row["speedup_low"], row["speedup_high"]) in text
    assert "…" not in text


@pytest.mark.parametrize("width", [220, 80, 36])
def test_no_figure_is_left_out_however_narrow(frame, width):
    text = printed(Group(*summary(rows_of(frame))), width)
    for row in measured(rows_of(frame)):
        for show, key in ((seconds, "candidate_seconds"), (significant, "baseline_throughput")):
            assert show(row[key]) in text
        assert size(row["candidate_peak_bytes"]) in text


def test_memory_says_how_it_was_found_where_that_is_not_usual(frame):
    row = measured(rows_of(frame))[0]
    (column,) = (column for column in CELL_COLUMNS if column.name == "memory candidate")
    shown = size(row["candidate_peak_bytes"])
    assert column.show({**row, "candidate_peak_source": "allocator"}) == shown
    assert column.show({**row, "candidate_peak_source": None}) == shown
    assert column.show({**row, "candidate_peak_source": "uncaptured"}) == f"{shown} (uncaptured)"
    assert column.show({**row, "candidate_peak_bytes": None}) == "–"


def test_no_control_codes_without_a_terminal_and_no_colour_with_no_color(frame, monkeypatch):
    assert "\x1b" not in printed(Group(*summary(rows_of(frame))), 120)
    assert "\x1b[32m" in printed(
        Group(*summary(rows_of(frame))), 120, force_terminal=True, color_system="standard"
    )
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in printed(Group(*summary(rows_of(frame))), 120, force_terminal=True)


def test_markup_in_names_is_not_obeyed(frame):
    hostile = frame.assign(candidate_label="[red]x[/red]\x1b[31m")
    text = printed(Group(*summary(rows_of(hostile))), 200)
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_empty_run_says_so(tmp_path):
    run = make_run(tmp_path / "run", pairs=("vit_s16.flop",), statuses={"*": "skipped"})
    text = printed(Group(*summary(rows_of(to_frame([run])))), 120)
    assert "No cell has a speed-up." in text
    assert "the budget was spent" in text
    assert "No cell has a speed-up." in printed(Group(*summary(rows_of(pd.DataFrame()))), 80)


def test_formats_agree(frame):
    rows = json.loads(format_frame(frame, "json"))
    table = pd.read_csv(io.StringIO(format_frame(frame, "csv")))
    assert len(rows) == len(table) == len(frame) == 16
    assert list(table.columns) == list(rows[0]) == list(frame.columns)
    assert table["speedup"].tolist() == pytest.approx(
        [float("nan") if row["speedup"] is None else row["speedup"] for row in rows], nan_ok=True
    )
    markdown = runs_markdown(measured(rows_of(frame))).splitlines()
    assert len(markdown) == 2 + 12
    assert len({line.count("|") for line in markdown}) == 1
    with pytest.raises(FlopbenchError, match=r"--format 'xml': choose one of table, json, csv, markdown"):
        format_frame(frame, "xml")


def test_replicates_become_one_row_with_the_widest_interval(tmp_path):
    run = make_run(
        tmp_path / "run", pairs=("vit_b16.flop",), batch_sizes=(64,), passes=("forward",), replicates=3
    )
    rows = rows_of(to_frame([run]))
    cells = measured(rows)
    assert (len(rows), len(cells)) == (6, 2)
    own = [row for row in rows if row["cell"] == cells[0]["cell"]]
    assert cells[0]["speedup_low"] == min(row["speedup_low"] for row in own)
    assert cells[0]["speedup_high"] == max(row["speedup_high"] for row in own)
    assert min(r["speedup"] for r in own) < cells[0]["speedup"] < max(r["speedup"] for r in own)
    assert cells[0]["realised_share"] == pytest.approx(
        (cells[0]["speedup"] - 1) / (cells[0]["macs_ratio"] - 1)
    )


def test_models_and_failures(frame):
    rows = rows_of(frame)
    found = {row["label"]: row for row in models(rows)}
    assert list(found) == ["ViT-S/16", "E(ViT-S/16)", "ViT-B/16", "H(ViT-B/16)"]
    assert found["E(ViT-S/16)"]["invariance_error"] == pytest.approx(3e-6)
    assert found["H(ViT-B/16)"]["invariance_error"] is None
    assert found["ViT-S/16"]["macs_ratio"] is None
    assert [row["status"] for row in failures(rows)] == ["oom"] * 4


def test_figures_as_people_read_them():
    assert [count(x) for x in (22_059_496, 4.6e9, 999.9e6)] == [
        "22.1\u00a0M",
        "4.60\u00a0G",
        "1.00\u00a0G",
    ]
    assert [count(x) for x in (0, 864, 999)] == ["0", "864", "999"]
    assert [count(x, 4) for x in (1_000, 17_563_828_224)] == ["1.000\u00a0k", "17.56\u00a0G"]
    assert exact(22_059_496) == "22\u202f059\u202f496"
    assert [seconds(x) for x in (2.409e-3, 1.2, 13e-6)] == ["2.41\u00a0ms", "1.20\u00a0s", "13.0\u00a0µs"]
    assert seconds_interval(2.409e-3, 998e-6, 0.0123) == "2.41\u00a0[0.998,\u00a012.3]\u00a0ms"
    assert [size(x) for x in (2**30, 1.5 * 2**20, 12)] == ["1.00\u00a0GiB", "1.50\u00a0MiB", "12.0\u00a0B"]
    assert [percent(x) for x in (0.456, -0.08)] == ["46\u00a0%", "−8\u00a0%"]
    assert [coverage(x) for x in (1.0, 0.999999, 0.5)] == ["100\u00a0%", "99.99\u00a0%", "50.00\u00a0%"]
    assert [change(x) for x in (0.071, -0.003, 0.0)] == ["+7.1\u00a0%", "−0.3\u00a0%", "0\u00a0%"]
    assert [factor(1.444), times(1.444), metric("speedup", None)] == ["1.44", "1.44×", "–"]
    assert [metric("speedup", 1.5), metric("throughput", 812.3)] == ["1.500×", "812.3/s"]
    assert [metric("operators", x) for x in (1_234, 4.6e9)] == ["1\u202f234", "4.60\u00a0G"]
    # The third decimal appears where two would hide on which side of 1 an end lies.
    assert interval(0.99, 0.98, 0.998) == "0.990\u00a0[0.980,\u00a00.998]"


def test_markdown_and_code_survive_hostile_text():
    assert markdown_escape("a|b *c* <d> `e`\n# f") == r"a\|b \*c\* \<d\> \`e\` \# f"
    assert markdown_escape("http://x www.x.com @me") == r"http\://x www\.x.com \@me"
    assert code("a`b") == "`` a`b ``"
    assert fenced("x\n```\ny").splitlines()[0] == "````"


def test_what_ran_is_a_column_and_a_table_of_its_own(tmp_path):
    axes = {"impls": ("eager", "auto")}
    run = make_run(
        tmp_path / "r", device=CPU, modes=("compile",), pairs=("vit_s16.flop",), axes=axes, ours=1.5
    )
    rows = rows_of(to_frame([run]))
    table = runs_table("", measured(rows), CELL_COLUMNS)
    ran = next(column for column in table.shown if column.name == "ran")
    assert {(row["impl"], ran.show(row)) for row in table.rows} == {("eager", "torch"), ("auto", "cpp")}
    told = {(row["label"], row["impl"], row["kernels"]) for row in what_ran(rows)}
    assert told == {
        (label, impl, f"{name}: linear")
        for label in ("ViT-S/16", "E(ViT-S/16)")
        for impl, name in (("eager", "torch"), ("auto", "cpp"))
    }
    # One of the pair alone is named, and what was not recorded is left out.
    mixed = {**rows[0], "baseline_kernels": "", "candidate_kernels": "triton: gelu"}
    assert ran.show(mixed) == "– | triton"
    assert what_ran([{**rows[0], "baseline_kernels": None, "candidate_kernels": None}]) == []


def test_throughput_per_watt_is_shown_where_it_is_known(tmp_path):
    known = to_frame([make_run(tmp_path / "known", watts=(600.0, 450.0), replicates=2)])
    assert "images/s/W" in runs_markdown(measured(rows_of(known)))
    (row, *_) = measured(rows_of(known))
    assert significant(row["candidate_throughput"] / 450, 2) in runs_markdown(measured(rows_of(known)))
    assert "images/s/W" not in runs_markdown(measured(rows_of(to_frame([make_run(tmp_path / "unknown")]))))


SERVED: Any = {"device": CPU, "pairs": ("vit_s16.flop",), "batch_sizes": (1,), "modes": ("eager",)}


def served(path, **fields):
    return serving(rows_of(to_frame([make_run(path, **SERVED, **fields)])))


def test_serving_figures_have_a_row_a_model(tmp_path):
    run = make_run(tmp_path / "run", serving=120, watts=(40.0, 30.0), **SERVED)
    rows = serving(rows_of(to_frame([run])))
    assert [row["label"] for row in rows] == ["ViT-S/16", "E(ViT-S/16)"]
    text = printed(Group(*summary(rows_of(to_frame([run])))), 220)
    for row in rows:
        p50 = (row["latency_p50"], row["latency_p50_low"], row["latency_p50_high"])
        assert seconds_interval(*p50) in text
        assert size(row["disk_bytes"]) in text
        assert size(row["peak_bytes"]) in text
        assert seconds(row["load_seconds"]) in text
        assert seconds(row["first_call_seconds"]) in text
        assert significant(row["joules"]) in text
    assert text.count("needs 368 calls") == 2
    assert "why not loaded" not in text


def test_percentiles_of_replicates_reach_as_far_as_any_of_theirs(tmp_path):
    one = served(tmp_path / "one", serving=400)[0]
    both = served(tmp_path / "both", serving=400, replicates=2)
    assert len(both) == 2
    assert both[0]["latency_p99_low"] <= one["latency_p99_low"]
    assert both[0]["latency_p99_low"] < both[0]["latency_p99"] < both[0]["latency_p99_high"]
    assert both[0]["latency_calls"] == 400


def test_what_cannot_be_loaded_is_said(tmp_path):
    run = make_run(tmp_path / "run", serving=120, **SERVED)
    record = run.records()[0]
    assert record.candidate is not None
    without = Serving(latencies=(0.1, 0.2), problem="cannot be loaded: no, thanks")
    assert record.candidate is not None
    candidate = record.candidate.model_copy(update={"serving": without})
    run.append(record.model_copy(update={"candidate": candidate}))
    text = printed(Group(*summary(rows_of(to_frame([run])))), 240)
    assert "cannot be loaded: no, thanks" in text
    assert "needs 6 calls" in text
