"""A network that several processes train together: replicated (DDP), or sharded over them (FSDP2).

What a training keeps of it, weights and the optimiser's state, is whole whatever the number of processes:
under the names of the network's parameters, on the CPU.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from flopbench.errors import FlopbenchError
from flopbench.models.layers import Network
from flopbench.private import compiled_alone
from flopbench.structures import mapped
from flopbench.timing.workload import repeated_blocks
from flopbench.training.world import World

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def parallel(
    model: nn.Module, world: World, image_size: tuple[int, int], *, sharded: bool = False
) -> nn.Module:
    """What to call in place of `model`, so that gradients are means over all processes.

    `model` stays the one whose parameters an optimiser takes, made after this, and whose state is saved.
    Weights are what the first process has. What is compiled is compiled before, in place (`model.compile()`).

    Args:
        model: on the world's device.
        world: this process among the others.
        image_size: pixels (height, width) that it is trained on.
        sharded: parameters, gradients and the optimiser's state lie in parts on the devices; block by
            block they are gathered where they are computed with. The arithmetic is that of one process:
            weights are gathered in fp32, and autocast rounds them as it does there.

    Raises:
        FlopbenchError: `sharded` in a process by itself.
    """
    if not dist.is_initialized():
        if sharded:
            raise FlopbenchError(
                "a network is sharded over several processes: start them by "
                "torchrun --nproc-per-node=N -m flopbench"
            )
        return model
    if not sharded:
        # A kernel's is another where a dimension is 1, which takes a copy.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # torch then searches the graph of every step for them, and warns where it finds none. The one graph
        # of our whole networks has all of them.
        unused = not (isinstance(model, Network) and compiled_alone(model)) and _has_unused_parameters(
            model, torch.zeros(1, 3, *image_size, device=world.device)
        )
        return DistributedDataParallel(model, find_unused_parameters=unused, gradient_as_bucket_view=True)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor, 0)
    # The root gives its gathered weights back after its forward pass too: it would compute with them still
    # after others were written into its parts, as an evaluation of averaged weights does.
    for unit in (*_blocks(model), model):
        fully_shard(unit, reshard_after_forward=True)
    return model


def _has_unused_parameters(model: nn.Module, images: Tensor) -> bool:
    """Whether some get no gradient, such as those of an equivariant network that its head does not see."""
    training = model.training
    model.eval()
    with torch.compiler.set_stance("force_eager"):
        model(images).sum().backward()
    model.train(training)
    unused = any(parameter.grad is None for parameter in model.parameters() if parameter.requires_grad)
    model.zero_grad(set_to_none=True)
    return unused


def _blocks(model: nn.Module) -> list[nn.Module]:
    try:
        return repeated_blocks(model)
    except RuntimeError:
        return []


@contextmanager
def accumulating(network: nn.Module, *, last: bool) -> Iterator[None]:
    """Forward and backward of one part of a batch; only of the `last` the gradients are exchanged.

    Args:
        network: what `parallel` gave.
        last: whether no other part of this batch follows.
    """
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(last)
    ddp = isinstance(network, DistributedDataParallel)
    with network.no_sync() if ddp and not last else nullcontext():
        yield


def clip_gradients(model: nn.Module, most: float) -> None:
    """Scale all gradients so that their norm, over all shards too, is no more than `most`."""
    nn.utils.clip_grad_norm_(model.parameters(), most)


def weights_norm(model: nn.Module) -> Tensor:
    """The norm of all weights, over all shards too, a scalar: not finite where one of them is not."""
    norm = nn.utils.get_total_norm(model.parameters())
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def model_state(model: nn.Module) -> dict[str, Any]:
    """A network's weights and buffers, whole, on the CPU; empty in other processes than the first."""
    return get_model_state_dict(model, options=_WHOLE)


def load_model_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `model_state` gave, which every process has read."""
    set_model_state_dict(model, dict(state), options=_WHOLE)


def optimiser_state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state, whole, on the CPU; of shards by the names of the network's parameters."""
    # Torch's way to gather shards takes a step of its own where none was taken, so it is for these alone.
    if isinstance(model, FSDPModule):
        return dict(get_optimizer_state_dict(model, optimiser, options=_WHOLE))
    return mapped(optimiser.state_dict(), lambda tensor: tensor.cpu().clone())


def load_optimiser_state(
    model: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Load what `optimiser_state` gave, which every process has read."""
    if not isinstance(model, FSDPModule):
        optimiser.load_state_dict(dict(state))
        return
    # Not strict: what has no gradient has no state.
    options = replace(_WHOLE, strict=False)
    set_optimizer_state_dict(model, optimiser, dict(state), options=options)
