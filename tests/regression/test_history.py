import re

import pytest
from typer.testing import CliRunner

from flopbench.cli import app
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.regression.history import find_runs, history, parse_since, table, write
from tests.support.runs import CPU, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for day in range(1, 13):
        make_run(
            folder / f"gpu/run-{day:02}",
            pairs=("vit_s16.flop",),
            batch_sizes=(8,),
            passes=("forward", "backward"),
            modes=("compile",),
            slowdown={"*forward*": 1.1} if day > 7 else 1.0,
            noise=0.002,
            seed=day,
            commit=f"{day:07x}" + "f" * 33,
            info={"created": f"2026-11-{day:02}T12:00:00+00:00"},
        )
    make_run(
        folder / "cpu", pairs=("vit_s16.flop",), device=CPU, info={"created": "2026-11-20T12:00:00+00:00"}
    )
    return folder


def test_the_commit_that_slowed_a_cell_down_is_named(folder):
    series = {(one.machine, one.cell): one for one in history(find_runs([folder]))}
    slowed = series["NVIDIA H200", "vit_s16.flop/cuda/b8/forward/bf16/compile"]
    ((point, before, after, worse),) = slowed.changes
    assert point.label == "2026-11-08 0000008"
    assert worse
    assert after / before == pytest.approx(1 / 1.1, rel=0.01)
    assert not series["NVIDIA H200", "vit_s16.flop/cuda/b8/backward/bf16/compile"].changes


def test_machines_are_apart(folder):
    machines = {one.machine for one in history(find_runs([folder]))}
    assert machines == {"NVIDIA H200", "Intel Xeon @ 2.80 GHz, 2 threads"}
    assert {one.machine for one in history(find_runs([folder]), machine="h200")} == {"NVIDIA H200"}


def test_since_and_cell_narrow_it(folder):
    series = history(find_runs([folder]), since=parse_since("2026-11-10"), cells=["*/cuda/*/forward/*"])
    assert [(one.cell, len(one.points)) for one in series] == [
        ("vit_s16.flop/cuda/b8/forward/bf16/compile", 3)
    ]


def test_figures_of_which_more_is_worse(folder):
    (series,) = history(find_runs([folder / "cpu"]), metric="macs", cells=["*b1/forward*eager"])
    assert series.points[0].value == 2_507_174_400


@pytest.mark.parametrize("damage", [{"run.json": "{"}, {"run.json": None}, {"cells.jsonl": None}])
def test_a_damaged_run_costs_itself_alone(folder, tmp_path, damage):
    whole = make_run(tmp_path / "whole", pairs=("vit_s16.flop",), seed=1)
    broken = make_run(tmp_path / "broken", pairs=("vit_s16.flop",), seed=2)
    for name, content in damage.items():
        file = broken.path / name
        if content is not None:
            file.write_text(content)
        elif name == "run.json":
            file.write_text(file.read_text().replace(broken.info.created, "yesterday"))
        else:
            file.unlink()
    told = []
    runs = find_runs([tmp_path], told.append)
    series = history(runs, say=told.append)
    assert {point.run for one in series for point in one.points} == {whole.info.id}
    (line,) = told
    assert line.startswith("left out: ")
    assert "broken" in line


def test_figures_of_zero_have_no_history(tmp_path):
    run = make_run(tmp_path / "run", pairs=("vit_s16.flop",), batch_sizes=(8,))
    file = run.path / "cells.jsonl"
    file.write_text(re.sub(r'"macs":\d+', '"macs":0', file.read_text()))
    with pytest.raises(NothingMeasuredError):
        history([run], metric="macs")


def test_files_hold_table_and_pictures(folder, tmp_path):
    series = history(find_runs([folder / "gpu"]))
    files = write(series, tmp_path)
    assert [file.name for file in files] == [
        "history-speedup-1.png",
        "history-speedup-1.svg",
        "history-speedup.md",
    ]
    assert "worse" in files[-1].read_text()
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert "2026-11-08 0000008" in table(series).markdown()


def test_nothing_to_show(folder, tmp_path):
    with pytest.raises(NothingMeasuredError, match="no run that can be read in"):
        find_runs([tmp_path])
    with pytest.raises(FlopbenchError, match="is not a folder"):
        find_runs([tmp_path / "missing"])
    with pytest.raises(NothingMeasuredError, match="--since"):
        history(find_runs([folder]), since=parse_since("2027-01-01"))
    with pytest.raises(FlopbenchError, match="did you mean speedup"):
        history(find_runs([folder]), metric="sped")
    with pytest.raises(FlopbenchError, match="write 2026-11-01"):
        parse_since("yesterday")


def test_a_run_counts_once(folder):
    for again in (folder, folder / "cpu"):
        with pytest.raises(FlopbenchError, match="in more than one of the folders"):
            find_runs([folder, again])


def test_the_command(folder, tmp_path):
    arguments = [
        "history",
        str(folder),
        "--out",
        str(tmp_path),
        "--format",
        "markdown",
        "--cell",
        "*forward*",
    ]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "| NVIDIA H200 |" in shown.stdout
    assert (tmp_path / "history-speedup.md").is_file()
