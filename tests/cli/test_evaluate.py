"""`flopbench evaluate`, as people and torchrun call it."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import flopbench
from flopbench.models.factory import perturb
from flopbench.results.trainings import NetworkInfo
from flopbench.training.weights import save_weights
from tests.cli.conftest import Call

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {"patch_size": 4, "width": 16, "depth": 1, "heads": 2}

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("sklearn", "safetensors"))), reason="evaluating needs flopbench[train,sets]"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has weights of a small E(ViT-Ti/16) and of ViT-Ti/16, both for digits."""
    monkeypatch.chdir(tmp_path)
    for name in ("vit_ti16", "vit_ti16.flop"):
        network = perturb(flopbench.create_model(name, 8, 10, **TINY))
        about = NetworkInfo(
            name=name, options=TINY, image_size=(8, 8), num_classes=10, mean=(0.3,) * 3, std=(0.4,) * 3
        )
        save_weights(Path(f"{name}.safetensors"), network.state_dict(), about)


def evaluating(name: str, *words: str) -> list[str]:
    """Its command line; not longer timed than it needs to be."""
    weights = f"{name}.safetensors"
    given = ["--weights", weights, "--data", "digits", "--device", "cpu", "--cell-seconds", "0.1"]
    return ["evaluate", name, *given, *words]


@pytest.mark.parametrize("name", ["vit_ti16", "vit_ti16.flop"])
def test_it_prints_tables_a_sentence_and_where_the_rest_is(call: Call, name: str):
    code, out, err = call(*evaluating(name))
    assert (code, err) == (None, "")
    for told in ("top-1", "flip", "images/s", "per second", "right"):
        assert told in out
    assert ("With mirror test-time augmentation" in out) == (name == "vit_ti16")
    (raw,) = Path("results").glob("evaluate-*/evaluation.json")
    assert f"raw data: {raw.parent}" in out
    (page,) = Path("reports").glob("evaluate-*/report.html")
    assert f"report: {page}" in out
    record = json.loads(raw.read_text())
    assert record["command"].startswith(f"flopbench evaluate {name} --weights {name}.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "vit_ti16", "--data", "digits"], "vit_ti16 has no trained weights"),
        (["evaluate", "vit_ti16", "--data", "digits", "--weights", "none.pt"], "no checkpoint at none.pt"),
        (
            evaluating("vit_ti16", "--weights", "vit_ti16.flop.safetensors"),
            "of vit_ti16.flop, not of vit_ti16",
        ),
        (evaluating("vit_ti16", "--data", "animal-shape-mnis"), "did you mean animal-shape-mnist or"),
        (evaluating("vit_ti16", "--batch-size", "0"), "--batch-size"),
        (evaluating("vit_ti16", "--dtype", "fp8"), "--dtype: input should be 'fp32'"),
        (evaluating("vit_ti16", "--image-size", "9"), "image_size must be a positive multiple of 4 pixels"),
        (evaluating("vit_ti16", "--crop", "2"), "--crop"),
        (evaluating("vit_ti16", "--device", "tpu"), "choose cpu or cuda"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(call: Call, words: list[str], message: str):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not Path("results").exists()


@pytest.mark.slow
def test_two_processes_find_what_one_does(call: Call):
    call(*evaluating("vit_ti16", "--cell-seconds", "0", "--batch-size", "50", "--results", "alone"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "-m",
            "flopbench",
            *evaluating("vit_ti16", "--batch-size", "50"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("raw data:") == 1
    alone, together = (
        json.loads(next(Path(folder).glob("*/evaluation.json")).read_text())
        for folder in ("alone", "results")
    )
    assert (alone["world_size"], together["world_size"]) == (1, 2)
    assert len(list(Path("results").iterdir())) == 1
    assert together["throughput"]
    for view in ("plain", "mirrored", "averaged"):
        one, both = (
            {k: v for k, v in record["accuracy"][view].items() if v is not None}
            for record in (alone, together)
        )
        assert both == pytest.approx(one, rel=1e-5)
    assert together["accuracy"]["images"] == alone["accuracy"]["images"]
