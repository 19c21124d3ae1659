"""Peak memory of a pass: what the model holds, and what the pass needs beside it."""

import os
from contextlib import nullcontext
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler import profile

from flopbench.modes import DeviceKind
from flopbench.private import raw_events, uncaptured
from flopbench.results import PeakSource
from flopbench.timing.workload import Workload


class Peak(NamedTuple):
    """Peak memory in bytes, None where it cannot be known, and how it was found."""

    bytes: int | None
    source: PeakSource


def held_bytes(workload: Workload) -> int:
    """Bytes that stay between calls: the model's parameters and buffers, and the optimiser's state."""
    states = workload.optimiser.state.values() if workload.optimiser else ()
    moments = (value for state in states for value in state.values() if isinstance(value, torch.Tensor))
    tensors = chain(workload.model.parameters(), workload.model.buffers(), moments)
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def peak_memory(workload: Workload, device: DeviceKind, cuda: Any = torch.cuda) -> Peak:
    """Peak memory of a warmed-up workload's call: what stays (`held_bytes`) and what it allocates.

    The call includes `prepare`, so for a backward pass the activations that the forward pass leaves
    count, as do gradients. On CUDA it is the caching allocator's own peak, without what the other
    model holds. On a CPU every allocation of torch's allocator is followed through the profiler,
    which is exact and repeatable, unlike the resident set; scratch space inside oneDNN and MKL is not seen.
    """
    if workload.deployed:
        # Torch's allocator knows little of what an engine holds and allocates.
        return Peak(None, "allocator")
    workload.model.zero_grad(set_to_none=True)
    if device == "cuda":
        source: PeakSource = "uncaptured" if workload.captured else "allocator"
        transient = _cuda_transient(workload, cuda)
    else:
        source = "allocator"
        # Not `torch.profiler`, which turns every event into an object when it stops: three times the call.
        # In the caller's process it would write to the terminal that it begins, ends, and finds no GPU.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        with profile(use_kineto=True, profile_memory=True) as trace:
            workload.run()
        transient = _peak_of_allocations(trace)
    workload.model.zero_grad(set_to_none=True)
    return Peak(None if transient is None else held_bytes(workload) + transient, source)


def _cuda_transient(workload: Workload, cuda: Any) -> int | None:
    """Bytes that a call allocates at its peak; None where the allocator saw nothing of it.

    A replayed CUDA graph allocates nothing: it works in memory that was set aside when it was captured. That
    pool says nothing of one model, for all graphs of a process share it. So what was captured runs once more
    without its graph, in the same pool, where the allocator counts. A network that replays graphs of its own
    is told by its allocating nothing.
    """
    with uncaptured() if workload.captured else nullcontext():
        if workload.captured:
            # The change from replaying to allocating moves what the last replay left; the next call is clean.
            workload.run()
            workload.model.zero_grad(set_to_none=True)
        cuda.synchronize()
        before, calls = cuda.memory_allocated(), _allocations(cuda)
        cuda.reset_peak_memory_stats()
        workload.run()
        cuda.synchronize()
    return cuda.max_memory_allocated() - before if _allocations(cuda) > calls else None


def _allocations(cuda: Any) -> int:
    return cuda.memory_stats().get("allocation.all.allocated", 0)


def _peak_of_allocations(trace: Any) -> int:
    changes = sorted(
        (event.start_ns(), order, event.nbytes())
        for order, event in enumerate(raw_events(trace))
        if event.name() == "[memory]"
    )
    current = peak = 0
    for _, _, change in changes:
        current += change
        peak = max(peak, current)
    return peak
