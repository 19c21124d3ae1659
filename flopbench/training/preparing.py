"""What is done to a network before its first step: it is built, prepared, and warmed up without a trace."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from flopbench.errors import FlopbenchError
from flopbench.flops import layer_costs
from flopbench.flops.audit import count_macs
from flopbench.flops.meta import on_meta
from flopbench.inputs import Inputs
from flopbench.models.catalog import parse_name
from flopbench.models.factory import create_model
from flopbench.recipes import Recipe
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
    ours = {"impl": recipe.impl} if parse_name(name).spec else {}
    return {"image_size": recipe.image_size, "num_classes": classes, **ours, **options}


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
