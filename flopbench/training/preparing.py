"""What is done to a network before its first step: it is built, prepared, and warmed up without a trace."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError, in_one_line, out_of_memory
from flopbench.flops import layer_costs
from flopbench.flops.audit import count_macs
from flopbench.flops.meta import on_meta
from flopbench.inputs import Inputs
from flopbench.models.catalog import parse_name
from flopbench.models.factory import create_model
from flopbench.models.tasks import CLASSIFICATION, TASKS
from flopbench.recipes import Recipe
from flopbench.results.trainings import DataInfo
from flopbench.timing.allocator import keep_freed_memory
from flopbench.timing.workload import compile_in_place, set_precision
from flopbench.training.optimising import Average


def build(name: str, options: Mapping[str, Any], recipe: Recipe, classes: int, seed: int) -> nn.Module:
    """A network with the weights of a seed, on the CPU. Random numbers go on as before.

    Raises:
        FlopbenchError: it cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model(name, **building(name, options, recipe, classes))


def building(name: str, options: Mapping[str, Any], recipe: Recipe, classes: int) -> dict[str, Any]:
    """What `create_model` builds a network by a recipe with."""
    ours: dict[str, Any] = {}
    if parse_name(name).spec is not None:
        # Somebody else's network has the one task that it was written for.
        ours = {"impl": recipe.impl} | ({} if recipe.task == CLASSIFICATION.name else {"task": recipe.task})
    return {"image_size": recipe.image_size, "num_classes": classes, **ours, **options}


@torch.no_grad()
def check_learns(model: nn.Module, recipe: Recipe, info: DataInfo) -> None:
    """See that a network can be trained on a set: it has weights, and a logit for each class of an image, or
    of each of its pixels.

    Raises:
        FlopbenchError: it has not, or fails at an image of the recipe's size.
    """
    name, weights = type(model).__name__, [one for one in model.parameters() if one.requires_grad]
    if not weights:
        raise FlopbenchError(f"{name} has no weights to train: requires_grad holds for no parameter")
    image = torch.zeros(1, 3, *recipe.image_size, device=weights[0].device)
    training = model.training
    try:
        # What another trainer compiled is not compiled for one image as well.
        with torch.compiler.set_stance("force_eager"):
            logits = model.eval()(image)
    except Exception as error:  # networks raise what they like
        if out_of_memory(error):
            raise
        size = "×".join(map(str, recipe.image_size))
        raise FlopbenchError(f"{name} fails on an image of {size} pixels: {in_one_line(error)}") from error
    finally:
        model.train(training)
    wanted = [1, info.classes, *(recipe.image_size if TASKS[recipe.task].decodes else ())]
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    # A wrong number of classes is told by itself.
    if isinstance(shape, str) or [*shape[:1], info.classes, *shape[2:]] != wanted or len(shape) < 2:
        raise FlopbenchError(f"{name} gives {shape} for one image, not logits {wanted}")
    if shape[1] != info.classes:
        raise FlopbenchError(
            f"the network has {shape[1]} logits, {info.name} has {info.classes} classes: "
            f"build it with num_classes={info.classes}"
        )


def prepare(model: nn.Module, recipe: Recipe, *, checkpointing: bool) -> None:
    """Set up the process and compile a network as a recipe says.

    Args:
        model: on its device; changed in place.
        recipe: its dtype and mode.
        checkpointing: whether activations are computed again in the backward pass instead of kept.

    Raises:
        FlopbenchError: the network cannot recompute its activations, or is not compiled that way.
    """
    # What a process has but once; shapes do not change, so that cuDNN may look for its fastest kernels.
    set_precision(recipe.dtype)
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    if checkpointing:
        try:
            model.set_grad_checkpointing(True)  # pyright: ignore[reportCallIssue]
        except (AttributeError, AssertionError):  # the second is timm's
            raise FlopbenchError(
                f"{type(model).__name__} cannot recompute its activations: train without checkpointing, "
                "or accumulate over smaller parts"
            ) from None
    try:
        compile_in_place(model, recipe.mode)
    except RuntimeError as error:
        raise FlopbenchError(str(error)) from None


def training_macs(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Of one image, forward and backward; three times those forward where the device of shapes fails."""
    image = torch.empty(1, 3, *image_size, device="meta")
    try:
        return sum(cost.macs for cost in layer_costs(on_meta(model), Inputs(image), "train"))
    except Exception:  # of networks that need values, torch raises all kinds
        device = next(model.parameters()).device
        return 3 * count_macs(model, Inputs(torch.zeros_like(image, device=device))).macs


@contextmanager
def undone(
    model: nn.Module,
    average: Average | None,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Iterator[None]:
    """Whatever is trained within it, all of these are afterwards as before."""
    tensors = [*model.parameters(), *model.buffers(), *(average.averages if average else ())]
    held = [tensor.detach().clone() for tensor in tensors]
    states = [(kept, copy.deepcopy(kept.state_dict())) for kept in (optimiser, scaler)]
    try:
        yield
    finally:
        optimiser.zero_grad(set_to_none=True)
        for tensor, before in zip(tensors, held, strict=True):
            tensor.detach().copy_(before)
        for kept, state in states:
            kept.load_state_dict(state)
