"""Adding an axis touches one file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import flopbench

PACKAGE = Path(flopbench.__file__).parent

AXIS = """
    seasoning: Annotated[
        Literal["mild", "hot"], Axis("seasonings", "taste", "How sharp", words="{} seasoning")
    ] = "mild"
"""

SUITE = """
title = "Seasoned"
pairs = ["vit_s16.flop"]
[profiles.cpu]
batch_sizes = [1]
passes = ["forward"]
modes = ["eager"]
seasonings = ["mild", "hot"]
"""

# What the package says of the axis, wherever an axis has a say.
SCRIPT = """
import json
from pathlib import Path
from flopbench.errors import FlopbenchError
from flopbench.regression.compare import compare_runs
from flopbench.report.tables import summary
from flopbench.report.cells import measured, rows_of, setting_words
from flopbench.results import Run, to_frame
from flopbench.suites import load_suite, override
from tests.support.runs import make_run
from rich.console import Console

suite = load_suite(Path("seasoned.toml"))
said = {"ids": [cell.id for cell in suite.profile("cpu").cells("cpu")]}
runs = [
    make_run(Path(taste), pairs=("vit_s16.flop",), axes={"seasonings": [taste]}) for taste in ("mild", "hot")
]
frame = to_frame(runs)
said["column"] = sorted(set(frame["seasoning"]))
said["words"] = setting_words(measured(rows_of(frame))[-1:])
console = Console(width=300, record=True, file=open("table.txt", "w"))
console.print(*summary(rows_of(frame)))
said["table"] = console.export_text()
try:
    compare_runs(*runs)
except FlopbenchError as error:
    said["difference"] = str(error)
print(json.dumps(said))
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = str(PACKAGE.parent)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), root))},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_adding_an_axis_touches_one_file(tmp_path: Path):
    shutil.copytree(PACKAGE, tmp_path / "flopbench")
    file = tmp_path / "flopbench" / "cells.py"
    before, impl, after = file.read_text(encoding="utf-8").partition("\n    impl: Annotated[")
    file.write_text(before + AXIS + impl + after, encoding="utf-8")
    (tmp_path / "seasoned.toml").write_text(SUITE)

    done = run(tmp_path, "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ids"] == [
        "vit_s16.flop/cpu/b1/forward/fp32/eager",
        "vit_s16.flop/cpu/b1/forward/fp32/eager/hot",
    ]
    assert said["column"] == ["hot", "mild"]
    assert said["words"].endswith(", hot seasoning")
    assert "taste" in said["table"]
    assert said["difference"].endswith("seasoning mild → hot")

    for command in ("run", "calibrate", "profile"):
        shown = run(tmp_path, "-m", "flopbench", command, "--help").stdout
        assert "--seasoning" in shown
    wrong = run(tmp_path, "-m", "flopbench", "run", "--seasoning", "bland")
    assert "--seasoning: input should be 'mild' or 'hot', got 'bland'" in wrong.stderr
