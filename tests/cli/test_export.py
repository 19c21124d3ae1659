"""`flopbench export` and `flopbench.export`: the file, what it says of itself, and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flopbench
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.models.factory import perturb
from flopbench.results.trainings import NetworkInfo
from flopbench.symmetries import fold
from flopbench.testing.invariance import TOLERANCE
from flopbench.training import export as exporting
from flopbench.training.networks import digest_of
from flopbench.training.weights import save_weights
from tests.cli.conftest import Call

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime", "sklearn", "safetensors"))),
    reason="exporting needs flopbench[onnxruntime,train,sets]",
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_onnx.py"
NAME = "vit_ti16.flop"
TINY: dict[str, Any] = {"patch_size": 4, "width": 16, "depth": 1, "heads": 2}
MEAN, STD = (0.3, 0.4, 0.5), (0.4, 0.5, 0.6)
NETWORKS = """
import torch
from torch import nn

class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 5)
    def forward(self, x):
        return self.head(x.mean((2, 3)))

class Chooses(Mean):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)

class Pairs(Mean):
    def forward(self, x):
        return super().forward(x[:2] if len(x) == 2 else x[:1])
"""


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return perturb(flopbench.create_model(NAME, 8, 10, **TINY)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: torch.nn.Module) -> Path:
    """Weights, networks of one's own, and what was exported of the weights in fp32."""
    folder = tmp_path_factory.mktemp("exported")
    about = NetworkInfo(name=NAME, options=TINY, image_size=(8, 8), num_classes=10, mean=MEAN, std=STD)
    save_weights(folder / "weights.safetensors", network.state_dict(), about)
    (folder / "exported_networks.py").write_text(NETWORKS)
    flopbench.export(
        NAME, folder / "net.onnx", to="onnx", weights=folder / "weights.safetensors", licence="CC0-1.0"
    )
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def served(file: str | Path) -> Any:
    """A file in ONNX Runtime, as somebody without flopbench opens it."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def exporting_words(*words: str, name: str = NAME, out: str = "new.onnx") -> list[str]:
    given = ["--weights", "weights.safetensors"] if name == NAME else []
    return ["export", name, "--to", "onnx", "--out", out, *given, *words]


def test_a_file_gives_what_the_network_gives_for_any_batch(network: torch.nn.Module):
    session = served("net.onnx")
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 8, 8)
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, network(images), atol=1e-4)


def test_a_file_says_what_it_is(network: torch.nn.Module):
    said = served("net.onnx").get_modelmeta().custom_metadata_map
    assert said["name"] == NAME
    assert (said["symmetry"], json.loads(said["invariant_under"])) == ("flop", ["flop"])
    assert (json.loads(said["image_size"]), said["num_classes"], said["task"]) == (
        [8, 8],
        "10",
        "classification",
    )
    assert (json.loads(said["mean"]), json.loads(said["std"])) == ([*MEAN], [*STD])
    assert json.loads(said["options"]) == TINY
    assert (said["weights"], said["weights_sha256"]) == ("weights.safetensors", digest_of(network))
    assert said["licence"] == "CC0-1.0"
    assert (said["engine"], said["dtype"]) == ("onnxruntime", "fp32")
    assert (said["flopbench"], said["torch"]) == (flopbench.__version__, str(torch.__version__))
    assert int(said["opset"]) >= 20


def test_the_example_serves_it_without_flopbench_and_torch(network: torch.nn.Module):
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(values).save("photo.png")
    blocked = (
        "import runpy, sys; sys.modules.update(torch=None, flopbench=None); sys.argv[0] = sys.argv.pop(1); "
    )
    run = f"{blocked}runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", run, str(EXAMPLE), "net.onnx", "photo.png", "--threads", "1"],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = re.findall(r"class (\d+): ([\d.]+)%", done.stdout)
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (MEAN, STD))
    with torch.no_grad():
        odds = network((pixels - mean) / std).softmax(1)[0]
    assert [int(label) for label, _ in answers] == odds.topk(5).indices.tolist()
    assert [float(share) for _, share in answers] == pytest.approx(
        (100 * odds.topk(5).values).tolist(), abs=0.06
    )
    assert re.findall(r"threads (\d+), batch (\d+): [\d.]+ ms", done.stdout) == [("1", "1"), ("1", "8")]


def test_it_prints_a_table_and_does_not_overwrite(call: Call, folder: Path):
    code, out, err = call(*exporting_words("--force", out="net.onnx"))
    assert (code, err) == (None, "")
    for told in (
        "net.onnx",
        "KiB",
        "onnxruntime",
        "opset",
        "difference from torch",
        "under a flop",
        "gelu as",
    ):
        assert told in out
    written = (folder / "net.onnx").read_bytes()
    code, out, err = call(*exporting_words(out="net.onnx"))
    assert (code, out) == (2, "")
    assert "net.onnx is there already: --force overwrites it" in err
    assert (folder / "net.onnx").read_bytes() == written


def test_without_weights_a_network_has_random_ones_as_it_was_asked_for(call: Call):
    words = ["--image-size", "32x48", "--num-classes", "7", "--width", "64", "--depth", "1", "--force"]
    code, out, err = call(*exporting_words(*words, name="vit_ti16", out="random.onnx"))
    assert (code, err) == (None, "")
    assert "weights random" in out
    assert "invariant" not in out
    session = served("random.onnx")
    assert [one.shape[1:] for one in (*session.get_inputs(), *session.get_outputs())] == [[3, 32, 48], [7]]
    said = session.get_modelmeta().custom_metadata_map
    assert not said.keys() & {"mean", "std", "licence"}


def test_int8_is_calibrated_on_images(call: Call):
    words = ["--dtype", "int8", "--calibration", "digits", "--calibration-images", "10"]
    code, out, err = call(*exporting_words(*words, out="int8.onnx"))
    assert (code, err) == (None, "")
    assert "4 images of the calibration" in out
    session = served("int8.onnx")
    assert session.get_modelmeta().custom_metadata_map["dtype"] == "int8"
    values = np.random.default_rng(0).integers(0, 17, (8, 1, 8, 8)) / 255
    images = (values - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    whole, quantised = (
        one.run(None, {one.get_inputs()[0].name: images.astype(np.float32)})[0]
        for one in (served("net.onnx"), session)
    )
    assert 0 < np.abs(whole - quantised).max() < 0.1 * np.abs(whole).max()


def test_a_calibration_is_spread_over_the_set(folder: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[torch.Tensor] = []

    def quantised(*args: Any) -> Any:
        seen.extend(images for (images,) in args[-1].calibration)
        raise FlopbenchError("enough")

    monkeypatch.setattr(exporting, "write", quantised)
    with pytest.raises(FlopbenchError, match="enough"):
        flopbench.export(
            NAME,
            "int8.onnx",
            to="onnx",
            weights="weights.safetensors",
            dtype="int8",
            calibration="digits",
            calibration_images=6,
            force=True,
        )
    assert [len(images) for images in seen] == [4, 2]
    from sklearn.datasets import load_digits

    assert len(seen[0].unique(dim=0)) == 4
    pixels = seen[0] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    digits: Any = load_digits()
    known = torch.tensor(digits.images / 255, dtype=torch.float32)
    nearest = (pixels[:, :1] - known).abs().amax((-2, -1)).min(dim=1)
    assert nearest.values.max() < 1e-4
    assert not torch.equal(nearest.indices.sort().values.diff(), torch.ones(3))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "tflite"], "unknown --to 'tflite'; known: aot, onnx, openvino"),
        (["--out", "net.xml"], "a file --to onnx ends in .onnx, e.g. net.onnx"),
        (["--out", "none/net.onnx"], "there is no folder none: make it first"),
        (["--out", "/proc/net.onnx"], "/proc cannot be written to"),
        (["--to", "aot", "--dtype", "int8"], "aot-inductor has no int8 on cpu: choose --dtype fp32 or bf16"),
        (["--dtype", "int8"], "give --calibration a data set or a folder"),
        (["--dtype", "int8", "--calibration", "digitz"], "did you mean digits?"),
        (["--calibration", "digits"], "--calibration is for int8, and fp32 needs none"),
        (["--dtype", "bf16"], "onnxruntime has no bf16 on cpu: choose --dtype fp32 or int8"),
        (["--weights", "none.pt"], "no checkpoint at none.pt"),
        (["--num-classes", "7"], "weights.safetensors has 10 classes, not 7"),
        (["--width", "32"], "leave them out"),
        (["--image-size", "9"], "must be a positive multiple of 4 pixels"),
        (["--threads", "0"], "--threads"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(call: Call, folder: Path, words: list[str], message: str):
    before = sorted(folder.iterdir())
    code, out, err = call(*exporting_words(*words))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Chooses", "Could not guard on data-dependent expression"), ("Pairs", "batch")],
)
def test_a_network_that_cannot_be_exported_is_named(call: Call, folder: Path, name: str, reason: str):
    before = sorted(folder.iterdir())
    code, out, err = call(*exporting_words("--image-size", "8", name=f"exported_networks:{name}"))
    assert (code, out) == (2, "")
    assert f"exported_networks:{name} cannot be exported: torch.export cannot take it: " in err
    assert reason in err
    assert len(err.splitlines()) == 1
    assert sorted(folder.iterdir()) == before


def test_an_engine_that_is_not_installed_is_named_with_its_remedy(
    call: Call, monkeypatch: pytest.MonkeyPatch
):
    from flopbench.engines import needs

    monkeypatch.setattr(needs, "find_spec", lambda package: None)
    code, out, err = call(*exporting_words())
    assert (code, out) == (2, "")
    assert "pip install 'flopbench[onnxruntime]'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda logits, images: logits + 1, "differs from torch"),
        (lambda logits, images: logits[:, :-1], "other shapes"),
        # No more than a difference may be, but of opposite signs on the two images of a mirrored pair.
        (
            lambda logits, images: logits + 0.9 * TOLERANCE["fp32"] * logits.std() * _side(images),
            "not invariant",
        ),
    ],
)
def test_a_file_whose_outputs_are_wrong_is_not_kept(folder: Path, monkeypatch, wrong: Any, message: str):
    one = type(exporting.engine("onnxruntime"))
    load = one.load

    def loaded(*args: Any) -> Any:
        session = load(*args)
        return lambda images: wrong(session(images), images)

    def copied(engine: Any, network: Any, args: Any, path: Path, request: Any) -> Any:
        fold(network)
        shutil.copy("net.onnx", path)
        return {}

    monkeypatch.setattr(exporting, "write", copied)
    monkeypatch.setattr(one, "load", loaded)
    before = sorted(folder.iterdir())
    with pytest.raises(NothingMeasuredError, match=message):
        flopbench.export(NAME, "new.onnx", to="onnx", weights="weights.safetensors")
    assert sorted(folder.iterdir()) == before
    kept = flopbench.export(NAME, "new.onnx", to="onnx", weights="weights.safetensors", check=False)
    assert kept.checked is None
    kept.path.unlink()


def _side(images: torch.Tensor) -> torch.Tensor:
    """±1 for each image, the opposite for its mirror image, `[B, 1]`."""
    return (images[:, :1, 0, 0] - images[:, :1, 0, -1]).sign()


def test_a_network_of_ones_own():
    own = flopbench.export("exported_networks:Mean", "own.onnx", to="onnx", image_size=8, force=True)
    assert (own.about["weights"], own.parameters, own.files) == ("its own", 20, (Path("own.onnx"),))
    assert own.disk_bytes == Path("own.onnx").stat().st_size
    assert own.checked is not None
    assert own.checked.symmetry == {}
    assert own.checked.difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "outputs"),
    [(NAME, {"task": "features"}, 2), (NAME, {"task": "segmentation"}, 1), ("vit_ti16.octic_tta", {}, 1)],
)
def test_other_tasks_and_networks_are_checked_for_their_symmetry(name: str, options: Any, outputs: int):
    size: Any = {"image_size": 32, "width": 64, "depth": 1}
    exported = flopbench.export(name, "other.onnx", to="onnx", force=True, **size, **options)
    assert len(served("other.onnx").get_outputs()) == outputs
    assert exported.checked is not None
    assert "flop" in exported.checked.symmetry


def test_python_refuses_what_the_command_has_no_option_for():
    with pytest.raises(FlopbenchError, match="unknown argument 'widht'"):
        flopbench.export(NAME, "new.onnx", to="onnx", widht=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(FlopbenchError, match="name the file"):
        flopbench.export(NAME, "new.onnx", to="onnx", options=TINY)
