"""Before anything is timed, a network is seen to have the symmetry that its task asks for."""

from typing import Any

import pytest
import torch
from torch import Tensor

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.models import heads
from flopbench.models.averaged import Averaged
from flopbench.pairs import Pair
from flopbench.runner.worker import inspect
from flopbench.timing.bench import Bench
from flopbench.timing.checks import WrongOutputError


def cell(name: str, task: str, **fields: Any) -> Cell:
    usual = {"device": "cpu", "batch_size": 2, "pass": "forward", "dtype": "fp32", "mode": "eager"}
    size = {"image_size": (64, 64), "num_classes": 5, "width": 64, "depth": 2}
    return Cell.model_validate({"pair": Pair.of(name), "task": task, **usual, **size, **fields})


@pytest.mark.parametrize(
    ("name", "task"),
    [("vit_ti16.flop", "segmentation"), ("vit_ti16.tta", "segmentation"), ("vit_ti16.octic", "features")],
)
def test_what_moves_with_the_image_is_measured(name: str, task: str):
    facts = inspect(lambda *_: None, cell(name, task))
    assert facts.failure == ""
    assert 0 <= max(*facts.random_errors.values(), *facts.photo_errors.values()) < 1e-5
    checked = Bench.of(cell(name, task, dtype="bf16")).check()
    assert checked is not None
    assert checked.in_cell is not None
    assert checked.in_cell < 0.2


def test_pixels_at_other_places_are_not_timed(monkeypatch: pytest.MonkeyPatch):
    def shifted(x: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.nn.functional.interpolate(x, size).roll(1, -1)

    monkeypatch.setattr(heads, "to_pixels", shifted)
    failure = inspect(lambda *_: None, cell("vit_ti16.flop", "segmentation")).failure
    assert failure.startswith("E(ViT-64×2/16) is not equivariant under a flop: relative error")
    broken = cell("vit_ti16.flop", "segmentation", dtype="bf16", **{"pass": "train"})
    with pytest.raises(WrongOutputError, match="is not equivariant under a flop in bf16 eager: relative"):
        Bench.of(broken).check()


def test_an_average_without_the_way_back_is_not_timed(monkeypatch: pytest.MonkeyPatch):
    forward = Averaged.forward

    def without(self: Averaged, images: Tensor) -> Any:
        self._act = lambda _, answer: answer
        return forward(self, images)

    monkeypatch.setattr(Averaged, "forward", without)
    facts = inspect(lambda *_: None, cell("vit_ti16.octic_tta", "segmentation"))
    assert "TTA8(ViT-64×2/16) is not equivariant under a" in facts.failure


def test_features_are_not_trained_by_themselves():
    with pytest.raises(FlopbenchError, match=r"^features of vit_ti16 have no loss to train with: state one"):
        cell("vit_ti16.flop", "features", **{"pass": "train"}).check()
    cell("vit_ti16.flop", "features", **{"pass": "backward"}).check()
