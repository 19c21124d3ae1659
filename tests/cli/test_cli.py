"""The command as a user meets it: its output and its exit code, mostly of a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.support.networks import LARGE, SMALL

ROOT = Path(__file__).parents[2]

SUITE = f"""
title = "Small networks"
pairs = ["{SMALL}@{LARGE}"]
[profiles.cpu]
batch_sizes = [1, 2]
passes = ["forward"]
modes = ["eager"]
image_sizes = [32]
num_classes = 10
cell_seconds = 0.3
"""


def flopbench(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flopbench", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return path


def test_help_does_not_wait_for_heavy_imports(tmp_path: Path):
    code = (
        "import sys; from flopbench.cli import app;"
        "commands = [], ['flops'], ['profile'], ['gate'];"
        "[app([*words, '--help'], standalone_mode=False) for words in commands];"
        "heavy = {'torch', 'pandas', 'matplotlib', 'numpy', 'fvcore', 'jinja2'} & set(sys.modules);"
        "print(*heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stderr.strip(), done.returncode) == ("", 0)
    for subcommand in ("audit", "predict", "check", "self-test"):
        assert re.search(rf"^  {subcommand}  ", done.stdout, re.MULTILINE)


def test_a_run_from_suite_file_to_report(suite: Path, tmp_path: Path):
    done = flopbench("run", "--suite", suite, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert re.search(
        r"\[2/2\] .*small  batch 2  forward  fp32  eager  32×32 pixels  10 classes  (\d|not resolved)",
        done.stdout,
    )
    (run,) = (tmp_path / "results").iterdir()
    info = json.loads((run / "run.json").read_text())
    assert info["schema"] == 2
    assert info["command"].startswith("flopbench run --suite")
    rows = [json.loads(line) for line in (run / "cells.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert len(rows[0]["baseline"]["samples"]) == len(rows[0]["candidate"]["samples"]) >= 2
    report = tmp_path / "reports" / info["id"] / "report.md"
    assert report.is_file()
    assert str(Path("reports") / info["id"] / "report.md") in done.stdout


def test_a_pipe_gets_the_table_and_nothing_else(suite: Path, tmp_path: Path):
    done = flopbench("run", "--suite", suite, "--batch-size", "1", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 1


def test_an_interrupt_keeps_the_finished_cells_and_says_how_to_go_on(suite: Path, tmp_path: Path):
    slow = SUITE.replace("0.3", "2\nprecision = 1e-9")
    suite.write_text(slow.replace("[1, 2]", "[1, 2, 3, 4, 5, 6, 7, 8]"))
    process = subprocess.Popen(
        [sys.executable, "-m", "flopbench", "run", "--suite", str(suite)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    finished = 0
    while not finished and time.monotonic() < deadline:
        time.sleep(0.1)
        finished = sum(len(f.read_text().splitlines()) for f in tmp_path.glob("results/*/cells.jsonl"))
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, output + errors
    assert "Traceback" not in errors
    assert "continue with: flopbench run --resume" in output
    (run,) = (tmp_path / "results").iterdir()
    statuses = [json.loads(line)["status"] for line in (run / "cells.jsonl").read_text().splitlines()]
    assert len(statuses) == 8
    assert statuses[0] == "ok"
    assert statuses[-1] == "skipped"


@pytest.mark.slow
def test_shards_merge_into_the_same_cells(suite: Path, tmp_path: Path):
    for part in ("1/2", "2/2"):
        done = flopbench("run", "--suite", suite, "--shard", part, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    shards = sorted((tmp_path / "results").iterdir())
    done = flopbench("merge", *shards, "--out", tmp_path / "results" / "whole", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "results" / "whole" / "cells.jsonl").read_text().splitlines()
    assert sorted(json.loads(row)["cell"]["batch_size"] for row in rows) == [1, 2]
    report = flopbench("report", tmp_path / "results" / "whole", cwd=tmp_path)
    assert report.returncode == 0, report.stderr


def test_cuda_is_refused_where_there_is_none(tmp_path: Path):
    done = flopbench("run", "--device", "cuda", cwd=tmp_path)
    assert done.returncode == 2
    assert "device cuda is not available" in done.stderr
    assert "use --device cpu" in done.stderr


def test_a_suite_without_cells_that_work_exits_with_3(tmp_path: Path):
    path = tmp_path / "bad.toml"
    path.write_text(SUITE.replace(SMALL, "tests.support.networks:nan"))
    done = flopbench("run", "--suite", path, cwd=tmp_path)
    assert done.returncode == 3
    assert "no cell could be measured" in done.stderr


def test_a_dry_run_names_the_cells_in_the_order_of_measuring(suite: Path, tmp_path: Path):
    done = flopbench("run", "--suite", suite, "--device", "cpu", "--dry-run", "--shard", "1/1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    names = [f"{SMALL}@{LARGE}/cpu/b{batch}/forward/fp32/eager/32x32/10-classes" for batch in (1, 2)]
    assert done.stdout.splitlines() == names
    assert not (tmp_path / "results").exists()


def test_list_and_env(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert "vit" in call("list", "suites")[1]
    models = call("list", "models")[1]
    assert re.search(r"vit_b16\.flop .*E\(ViT-B/16\) .*43\u202f311\u202f976", models)
    assert json.loads(call("env")[1])["torch"]
    assert call("--version")[1].startswith("flopbench ")
    assert "Usage" in call()[1]
