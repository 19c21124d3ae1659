"""Trainings in their folders: what is written, and that whatever ends one, going on leaves no trace of it."""

import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import flopbench
from flopbench.errors import FlopbenchError
from flopbench.recipes import load_recipe
from flopbench.results.training_folder import TrainingFolder
from flopbench.results.trainings import Point, TrainingInfo
from flopbench.training import session
from flopbench.training.session import Watch
from flopbench.training.train import Stopped, Training
from flopbench.training.weights import read_weights
from tests.support.disks import files_of_at_most

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("sklearn", "timm", "safetensors"))), reason="training needs flopbench[train,sets]"
)

SMALL = {"patch_size": 4, "width": 16, "depth": 2, "heads": 2, "layer_scale": 0.5, "drop_path": 0.2}

RECIPE = load_recipe(
    "proxy-cpu",
    {
        "epochs": 2,
        "mode": "eager",
        "batch_size": 256,
        "image_size": [8, 8],
        "optimiser": {"learning_rate": 2e-2},
        "schedule": {"warmup_epochs": 0.5},
        "mix": {"mixup": 0.8},
        "evaluation": {"every_epochs": 0.8},
        "options": {"vit_ti16*": SMALL},
    },
)

MODEL = "vit_ti16.flop"


class Shown(Watch):
    """What a watch was told, and what happens when it is told of a step."""

    def __init__(self, stop_at: int | None = None, number: int = signal.SIGTERM) -> None:
        self.steps: list[int] = []
        self.points: list[Point] = []
        self.begun: list[tuple[str, int]] = []
        self.stop_at, self.number = stop_at, number

    def begin(self, info: TrainingInfo, path: Path, step: int) -> None:
        self.begun.append((info.label, step))

    def step(self, step: int, loss: float, rate: float) -> None:
        self.steps.append(step)
        if step == self.stop_at:
            signal.raise_signal(self.number)

    def point(self, point: Point) -> None:
        self.points.append(point)


def train(out: Path, watch: Watch | None = None, **changes: Any) -> Training:
    return flopbench.train(RECIPE, MODEL, "digits", out=out, device="cpu", watch=watch, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training that nothing interrupted."""
    return train(tmp_path_factory.mktemp("whole") / "training")


def results(path: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """What a training came to, but for what depends on the clock, and why nothing else than torch ran: the
    processes of these tests interpret Triton, those that they start may not.
    """
    changing = {"seconds", "rate", "joules", "implementations"}
    found = TrainingFolder.open(path).points()
    assert all(point.kernels and point.kernels.startswith("torch: ") for point in found)
    points = [point.model_dump(exclude=changing) for point in found]
    tensors = {
        f"{name}/{key}": tensor
        for name in ("weights", "ema", "best")
        for key, tensor in read_weights(path / f"{name}.safetensors")[0].items()
    }
    return points, tensors


def same(one: Path, other: Path) -> bool:
    (points, tensors), (others, their) = results(one), results(other)
    return points == others and all(torch.equal(tensors[key], their[key]) for key in tensors | their)


def test_a_folder_holds_what_was_trained_and_what_came_of_it(whole: Training):
    assert {path.name for path in whole.path.iterdir()} == {
        "training.json", "points.jsonl", "checkpoint.pt",
        "weights.safetensors", "ema.safetensors", "best.safetensors",
    }  # fmt: skip
    info = TrainingFolder.open(whole.path).info
    assert (info.name, info.label, info.options) == (MODEL, "E(ViT-16×2/4)", SMALL)
    rows = whole.frame().to_dict("records")
    assert [row["step"] for row in rows] == [4, 8, 10]
    assert rows[-1]["epoch"] == 2
    assert sorted(row["seconds"] for row in rows) == [row["seconds"] for row in rows]
    assert [row["macs"] for row in rows] == [step * 256 * info.macs for step in (4, 8, 10)]
    # Ten classes: it has learnt something.
    assert max(row["top1"] for row in rows) > 0.15
    assert "validation images at the end" in str(whole)


def test_the_model_is_the_one_whose_weights_are_kept(whole: Training):
    state, network = read_weights(whole.path / "weights.safetensors")
    assert all(torch.equal(state[key], value) for key, value in whole.model.state_dict().items())
    assert network is not None
    assert (network.name, network.options, network.num_classes) == (MODEL, SMALL, 10)


def test_another_seed_is_another_training(whole: Training, tmp_path: Path):
    other = train(tmp_path / "training", seed=1)
    assert not same(whole.path, other.path)


@pytest.mark.parametrize("stop_at", [1, 6])
def test_a_stopped_training_goes_on_to_the_bit(
    whole: Training, tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session, "TURN_SECONDS", 0)
    out, shown = tmp_path / "my training", Shown(stop_at)
    with pytest.raises(Stopped, match=rf"saved after step {stop_at} of 10") as stopped:
        train(out, shown)
    assert f"flopbench train --resume '{out}' --data digits" in str(stopped.value)
    assert shown.steps[-1] == stop_at
    shown = Shown()
    flopbench.train(resume=out, watch=shown)
    assert (shown.begun, shown.steps[0]) == ([("E(ViT-16×2/4)", stop_at)], stop_at + 1)
    assert same(whole.path, out)


def test_it_is_stopped_and_saved_in_turns_without_a_trace(
    whole: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session, "TURN_SECONDS", 0)
    monkeypatch.setattr(session, "SAVE_SECONDS", 0)
    assert same(whole.path, train(tmp_path / "training").path)


PROGRAM = """
import sys
from tests.training.test_train import train
from pathlib import Path
train(Path(sys.argv[1]))
"""


def test_a_killed_training_goes_on_to_the_bit(whole: Training, tmp_path: Path):
    out = tmp_path / "training"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(out)])
    try:
        deadline = time.monotonic() + 120
        while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert len(TrainingFolder.open(out).points()) < len(TrainingFolder.open(whole.path).points())
    flopbench.train(resume=out)
    assert same(whole.path, out)


def test_a_training_that_was_killed_at_an_evaluation_repeats_it(
    whole: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Between the line of an evaluation and its checkpoint: the line is there, the weights are not."""

    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    out = tmp_path / "training"
    monkeypatch.setattr(session.state, "save", killed)
    with pytest.raises(SystemExit):
        train(out)
    monkeypatch.undo()
    assert len(TrainingFolder.open(out).points()) == 1
    (out / ".checkpoint.pt.half").write_bytes(b"half")
    flopbench.train(resume=out)
    assert same(whole.path, out)
    assert not list(out.glob(".*"))


def test_a_finished_training_says_so(whole: Training):
    shown = Shown()
    training = flopbench.train(resume=whole.path, watch=shown)
    assert (shown.begun, shown.steps, shown.points) == ([("E(ViT-16×2/4)", 10)], [], [])
    assert len(training.frame()) == 3


@pytest.mark.parametrize(
    ("asked", "difference"),
    [
        ({"batch_size": 128}, "batch_size: 256 → 128"),
        ({"optimiser": {"learning_rate": 2e-3}}, "optimiser.learning_rate: 0.02 → 0.002"),
        ({"evaluation": {"every_epochs": 1.0}}, "evaluation.every_epochs: 0.8 → 1.0"),
        ({"model": "vit_ti16"}, "model: vit_ti16.flop → vit_ti16"),
        ({"seed": 3}, "seed: 0 → 3"),
        ({"accumulation": 2}, "accumulation: 1 → 2"),
        ({"epochs": 3, "seed": 3}, "seed: 0 → 3; epochs: 2.0 → 3.0"),
    ],
)
def test_another_training_than_was_begun_is_refused(whole: Training, asked: dict[str, Any], difference: str):
    before = {path.name: path.read_bytes() for path in whole.path.iterdir()}
    with pytest.raises(FlopbenchError, match=r"^cannot resume ") as refused:
        flopbench.train(resume=whole.path, **asked)
    assert difference in str(refused.value)
    assert {path.name: path.read_bytes() for path in whole.path.iterdir()} == before


@pytest.mark.parametrize(("field", "value"), [("torch", "2.0.0"), ("device_name", "Another")])
def test_another_machine_or_torch_is_refused(whole: Training, tmp_path: Path, field: str, value: str):
    moved = moved_to(whole, tmp_path, environment={field: value})
    with pytest.raises(FlopbenchError, match=rf"{field.replace('_', '.')}"):
        flopbench.train(resume=moved)


def test_other_processes_are_refused_and_other_threads_are_told(whole: Training, tmp_path: Path):
    with pytest.raises(FlopbenchError, match="processes: 8 → 1"):
        flopbench.train(resume=moved_to(whole, tmp_path / "8", world_size=8))
    threads = moved_to(whole, tmp_path / "threads", environment={"threads": 77})
    with pytest.warns(UserWarning, match=r"under other conditions.*threads"):
        flopbench.train(resume=threads)


def moved_to(whole: Training, folder: Path, environment: dict[str, Any] | None = None, **fields: Any) -> Path:
    """A copy of a training's folder whose record says something else."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in whole.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    record = json.loads((folder / "training.json").read_text())
    record |= fields
    record["environment"] |= environment or {}
    (folder / "training.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    ("room", "points"), [(700, 1), (10_000, 2)], ids=["no room for a line", "no room for weights"]
)
def test_a_full_disk_keeps_the_last_checkpoint(whole: Training, tmp_path: Path, room: int, points: int):
    out, limit = tmp_path / "training", files_of_at_most(room)

    class Filling(Watch):
        """After the first evaluation there is next to no room left."""

        def step(self, step: int, loss: float, rate: float) -> None:
            if step == 5:
                limit.__enter__()

    try:
        with pytest.raises(FlopbenchError, match="last checkpoint is kept") as full:
            train(out, Filling())
    finally:
        limit.__exit__(None, None, None)
    assert "\n" not in str(full.value)
    assert len(TrainingFolder.open(out).points()) == points
    assert not list(out.glob(".*"))
    shown = Shown()
    flopbench.train(resume=out, watch=shown)
    assert shown.begun[0][1] == 4
    assert same(whole.path, out)


def test_what_is_missing_or_too_much_is_told(whole: Training, tmp_path: Path):
    with pytest.raises(FlopbenchError, match="needs a recipe, a model and data"):
        flopbench.train("proxy-cpu")
    with pytest.raises(FlopbenchError, match="is not a training"):
        flopbench.train(resume=tmp_path)
    with pytest.raises(FlopbenchError, match="leave out"):
        train(tmp_path / "other", resume=whole.path)
    with pytest.raises(FlopbenchError, match="'digit'; did you mean digits"):
        flopbench.train("proxy-cpu", MODEL, "digit", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
