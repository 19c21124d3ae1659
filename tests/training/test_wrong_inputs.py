"""What users get wrong in training and evaluating: one line says what would be right, no folder is left."""

import sys
from pathlib import Path

import pytest

from flopbench.cli import main

RECIPE = """
title = "tiny"
epochs = 1
batch_size = 64
image_size = 8
optimiser = { name = "adamw", learning_rate = 1e-3 }
augmentation = { mirror = 0.0 }
options."vit_m16*" = { widht = 48 }
options."vit_ti16*" = { patch_size = 4, width = 48, depth = 2, heads = 3 }
"""
TRAIN = "train own.toml --device cpu --data digits --model"
EVALUATE = "evaluate vit_ti16.flop --device cpu --data digits --weights"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run, with a recipe, a file of text and a folder of nothing."""
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(RECIPE)
    Path("notes.txt").write_text("no weights\n")
    Path("weights.pt").write_bytes(b"PK\x03\x04 torn off")
    Path("empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (f"{TRAIN} vit_ti16.flop --set optimizer.name=adamw", "did you mean optimiser"),
        (f"{TRAIN} vit_ti16.flop --set optimiser.learning_rate=high", "should be a valid number"),
        (f"{TRAIN} vit_ti16.flop --set image_size=30", "a multiple of 4, e.g. 32"),
        (
            f"{TRAIN} vit_ti16.flop --set augmentation=none",
            "augmentation: input should be a table, got 'none'",
        ),
        (
            f"{TRAIN} vit_ti16.flop --set options.x.num_classes=3",
            "options of x: num_classes is what the data",
        ),
        (f"{TRAIN} vit_ti16.flop --epochs 1e300", "epochs: input should be less than or equal to 1000000"),
        (f"{TRAIN} vit_ti16.flop --seed {2**63}", "seed must be from 0 to 2^63 − 1"),
        (
            f"{TRAIN} vit_m16.flop --set image_size=16 --dry-run",
            "unknown option of vit_m16.flop 'widht'; did you mean width",
        ),
        (f"{TRAIN} vit_ti16.flop --sharded", "start them by torchrun"),
        (f"{TRAIN} vit_ti16.flop --accumulate 3", "choose a batch_size that does"),
        (f"{TRAIN} vit_ti16.flop --out notes.txt", "notes.txt is a file: name a folder"),
        (f"{TRAIN} mlp_768.flop --set image_size=16", "is a single layer, which classifies nothing"),
        (f"{TRAIN} vit_ti16.flop --data notes.txt", "notes.txt is a file: name a folder of"),
        ("train --resume empty", "empty is not a training: it has no training.json"),
        (f"{EVALUATE} notes.txt", "notes.txt is no checkpoint of tensors alone: "),
        (f"{EVALUATE} weights.pt --cell-seconds 0", "weights.pt is no checkpoint of tensors alone: "),
        (f"{EVALUATE} weights.pt --interpolation nearest", "did you mean bilinear?"),
        (f"{EVALUATE} weights.pt --precision -1", "precision is between 0 and 1"),
        ("race own.toml --pair vit_ti16.flop", "a race needs data"),
        ("race own.toml --pair vit_ti16 --data digits", "has no baseline"),
        ("race own.toml --pair vit_ti16.flop --data digits --rival tall", "rivals[0]"),
        ("race --suite race-smal", "did you mean race-small"),
        ("run --suite race-small", "flopbench race --suite race-small"),
    ],
)
def test_one_line_says_what_would_be_right(
    line: str,
    complaint: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    before = sorted(folder.iterdir())
    monkeypatch.setattr(sys, "argv", ["flopbench", *line.split()])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert end.value.code == 2, printed.err
    assert printed.err.count("\n") == 1
    assert complaint in printed.err
    assert printed.out == ""
    assert sorted(folder.iterdir()) == before
