"""The GPU pass without a GPU: every step of it, tiny, with the kernels in Triton's interpreter."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.gpu.cases import CASES

ROOT = Path(__file__).parents[2]
RUNS = ["forward", "train", "huge", "large", "eager", "fused", "resolution", "dense", "layers"]
STEPS = ["machine", "operations", "gradients", "forward", "profile", "train", "huge"]
STEPS += ["training", "tests", "microbench", *RUNS[3:]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project as it is on the GPU's machine, where nothing of it is installed."""
    copy = tmp_path / "project"
    for folder in ("flopbench", "suites", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


@pytest.mark.slow
def test_every_step_of_the_pass_ends_well(project: Path, tmp_path: Path):
    pytest.importorskip("triton", reason="Triton is not installed: this build of torch is for the CPU")
    out = tmp_path / "out"
    out.mkdir()
    environment = os.environ | {
        # The scripts say python3, which has to be this one.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OUT": str(out),
        "DEVICE": "cpu",
        "TRITON_INTERPRET": "1",
    }
    done = subprocess.run(
        ["bash", "tests/gpu/pass.sh"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^-- (\w+): exit (\d+),", done.stdout, re.MULTILINE) == [(s, "0") for s in STEPS]
    assert "no time left" not in done.stdout

    rows = [json.loads(line) for line in (out / "microbench.jsonl").read_text().splitlines()]
    assert {"product", "copy", "qkv", "linear+gelu", "add+norm", "attention"} <= {
        row["piece"] for row in rows
    }
    assert [row for row in rows if "error" in row] == []
    timed = [case for case in CASES.values() if case.timed]
    for name, cases in (("operations", timed), ("gradients", [case for case in timed if case.backward])):
        assert len((out / f"{name}.jsonl").read_text().splitlines()) == 2 * len(cases)
    assert not (out / "failures.txt").exists()
    with tarfile.open(out / "runs.tar.gz") as archive:
        names = archive.getnames()
    assert sum(name.endswith("cells.jsonl") for name in names) == len(RUNS)
    assert sum(name.endswith("profile.json") for name in names) == 1
    with tarfile.open(out / "logs.tar.gz") as archive:
        assert {f"./{step}.log" for step in STEPS} == set(archive.getnames())
