"""`flopbench train`, as people and torchrun call it."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from flopbench.cli.train import changes_of
from flopbench.errors import FlopbenchError
from flopbench.results.training_folder import TrainingFolder
from tests.cli.conftest import Call

ROOT = Path(__file__).parents[2]

RECIPE = """
extends = "proxy-cpu"
title = "Small"
epochs = 2
batch_size = 256
image_size = 8
mode = "eager"
schedule = { warmup_epochs = 1 }
options = { "vit_ti16*" = { patch_size = 4, width = 16, depth = 2, heads = 2 } }
"""

needs_packages = pytest.mark.skipif(
    not all(map(find_spec, ("sklearn", "timm", "safetensors"))), reason="training needs flopbench[train,sets]"
)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(RECIPE)
    return "small.toml"


def test_settings_are_tables_of_toml_values_or_words():
    assert changes_of(
        [
            "optimiser.learning_rate=1e-3",
            "optimiser.name=lion",
            "ema = 0.9",
            "image_size=[32, 64]",
            "mode='eager'",
        ]
    ) == {
        "optimiser": {"learning_rate": 1e-3, "name": "lion"},
        "ema": 0.9,
        "image_size": [32, 64],
        "mode": "eager",
    }
    assert changes_of(['options."vit_b16*".drop_path=0.2']) == {"options": {"vit_b16*": {"drop_path": 0.2}}}


@pytest.mark.parametrize("setting", ["ema", "=3", "optimiser..name=3", "a b=3"])
def test_a_setting_of_another_form_is_refused(setting: str):
    with pytest.raises(FlopbenchError, match=r"--set .* is not of the form"):
        changes_of([setting])


def test_a_dry_run_says_what_would_be_done_and_does_nothing(call: Call, recipe: str):
    words = ["--model", "vit_ti16.flop", "--batch-size", "64", "--set", "optimiser.learning_rate=0.5"]
    code, printed, _ = call("train", recipe, *words, "--dry-run")
    assert not code
    assert '"batch_size": 64' in printed
    assert '"learning_rate": 0.5' in printed
    assert "E(ViT-Ti/16): " in printed
    assert [path.name for path in Path().iterdir()] == [recipe]


@needs_packages
def test_a_training_is_shown_kept_and_reported(call: Call, recipe: str):
    words = ["--model", "vit_ti16.flop", "--data", "digits", "--results", "kept", "--device", "cpu"]
    code, printed, told = call("train", recipe, *words)
    assert not code
    assert re.search(r"E\(ViT-16×2/4\) by small on 1.442 images of digits: 2 epochs, 10 steps", told)
    assert re.search(r"step 10 of 10, loss [\d.]+, top-1 .* of training", told)
    assert "\x1b" not in told
    assert "validation images at the end" in printed
    (out,) = map(str, Path("kept").iterdir())
    assert f"training: {out}" in printed
    assert Path("reports", Path(out).name, "report.html").is_file()
    # Whatever was trained is reported again, and has nothing left to do.
    assert not call("report", out)[0]
    code, _, told = call("train", "--resume", out)
    assert not code
    assert "finished already" in told
    code, _, told = call("train", "--resume", out, "--batch-size", "8")
    assert (code, told.count("\n")) == (2, 1)
    assert "batch_size: 256 → 8" in told


@needs_packages
def test_a_signal_saves_and_says_how_to_go_on(recipe: str):
    words = [
        "train",
        recipe,
        "--model",
        "vit_ti16.flop",
        "--data",
        "digits",
        "--out",
        "out",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-m", "flopbench", *words, "--epochs", "5000"]
    log = Path("log")
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    while "top-1" not in log.read_text() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    *_, told, last = log.read_text().splitlines()
    assert re.fullmatch(
        r"interrupted, saved after step \d+ of 25000; continue with: "
        "flopbench train --resume out --data digits",
        told,
    )
    assert last == "flopbench: interrupted"
    assert TrainingFolder.open(Path("out")).points()
