"""What a worker sets and looks at before it measures."""

import pytest
import torch

from flopbench.cells import Cell
from flopbench.pairs import Pair
from flopbench.runner import worker


def test_symmetry_is_proven_in_full_precision_whatever_the_cell_s(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def errors(model, images, generators, action) -> dict[str, float]:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return {"flop": 0.0}

    monkeypatch.setattr(worker, "equivariance_errors", errors)
    # As cuDNN has it by default, and a network that somebody imports may.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    cell = Cell.model_validate(
        {
            "pair": Pair.of("vit_ti16.flop"),
            "device": "cpu",
            "batch_size": 1,
            "pass": "forward",
            "dtype": "bf16",
            "mode": "eager",
            "image_size": (32, 32),
        }
    )
    worker.inspect(lambda kind, value: None, cell)
    assert seen == [("highest", False)] * 2
