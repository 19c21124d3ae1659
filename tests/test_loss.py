"""What a training step differentiates where a pair states no loss: one loss per task."""

import math
from typing import cast, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.inputs import Inputs
from flopbench.loss import SUPERVISED, cross_entropy, task_loss
from flopbench.models.tasks import TaskName

NONE = Inputs()


def of(task: TaskName, output: object) -> Tensor:
    return task_loss(task)(output, NONE)


@pytest.mark.parametrize("shape", [(7, 5), (2, 5, 3, 4)])
def test_labels_have_all_classes_and_the_right_logits_no_loss(shape: tuple[int, ...]):
    labels = SUPERVISED["segmentation"].target(torch.Size(shape), torch.device("cpu"))
    assert labels.shape == (shape[0], *shape[2:])
    assert labels.unique().tolist() == list(range(5))
    right = 100.0 * F.one_hot(labels, 5).movedim(-1, 1)
    tasks: tuple[TaskName, ...] = ("classification", "segmentation")
    for task in tasks:
        assert of(task, right) < 1e-6 < 50 < of(task, -right)
        assert of(task, torch.zeros(shape)) == pytest.approx(math.log(5))


def test_depth_is_held_to_a_map_and_normals_to_directions():
    depth = SUPERVISED["depth"].target(torch.Size((2, 1, 4, 6)), torch.device("cpu"))
    assert of("depth", depth.expand(2, 1, 4, 6)) == 0
    assert of("depth", depth.expand(2, 1, 4, 6) - 0.5) == pytest.approx(0.5)
    normals = SUPERVISED["normals"].target(torch.Size((2, 3, 4, 6)), torch.device("cpu"))
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(1, 4, 6))
    assert len(normals.flatten(2).unique(dim=2)[0, 0]) == 24
    # Of vectors, their directions.
    for factor, loss in ((1, 0), (7, 0), (-1, 2)):
        assert of("normals", factor * normals.repeat(2, 1, 1, 1)) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("task", SUPERVISED)
def test_losses_are_in_fp32_with_gradients_of_the_output_s_dtype(task: TaskName):
    output = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    loss = of(task, output)
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    loss.backward()
    assert output.grad is not None
    assert output.grad.dtype == torch.bfloat16
    assert output.grad.isfinite().all()
    assert output.grad.any()


def test_every_other_task_and_shape_is_refused_in_a_line():
    (other,) = set(get_args(TaskName)) - SUPERVISED.keys()
    with pytest.raises(FlopbenchError, match=r"^a training step of features needs a loss: state one, or"):
        task_loss(cast(TaskName, other))
    wrong: dict[TaskName, object] = {
        "depth": torch.zeros(2, 5),
        "segmentation": {"out": torch.zeros(2, 5, 4, 4)},
    }
    for task, output in wrong.items():
        with pytest.raises(FlopbenchError, match=r"^a training step needs .* the network gives a .*: state"):
            of(task, output)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_gradient_of_logits_of_pixels_lies_as_they_do(smoothing: float):
    values, labels = torch.randn(2, 5, 3, 4), torch.randint(5, (2, 3, 4))
    for layout in (torch.contiguous_format, torch.channels_last):
        logits = values.contiguous(memory_format=layout).requires_grad_()
        wide = values.double().requires_grad_()
        got = cross_entropy(logits, labels, smoothing)
        expected = F.cross_entropy(wide, labels, label_smoothing=smoothing)
        torch.testing.assert_close(got.double(), expected)
        (gradient,), (right,) = torch.autograd.grad(got, logits), torch.autograd.grad(expected, wide)
        torch.testing.assert_close(gradient.double(), right)
        assert gradient.is_contiguous(memory_format=layout)
