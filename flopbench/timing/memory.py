"""Peak memory of a pass: what the model holds, and what the pass needs beside it."""

from itertools import chain
from typing import Any

import torch
from torch.autograd.profiler import profile

from flopbench.cells import DeviceKind
from flopbench.private import raw_events
from flopbench.timing.workload import Workload


def held_bytes(workload: Workload) -> int:
    """Bytes that stay between calls: the model's parameters and buffers, and the optimiser's state."""
    states = workload.optimiser.state.values() if workload.optimiser else ()
    moments = (value for state in states for value in state.values() if isinstance(value, torch.Tensor))
    tensors = chain(workload.model.parameters(), workload.model.buffers(), moments)
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def peak_bytes(workload: Workload, device: DeviceKind, cuda: Any = torch.cuda) -> int:
    """Peak memory of a warmed-up workload's call, in bytes: what stays (`held_bytes`) and what it allocates.

    The call includes `prepare`, so for a backward pass the activations that the forward pass leaves
    count, as do gradients. On CUDA it is the caching allocator's own peak, without what the other
    model holds. On a CPU every allocation of torch's allocator is followed through the profiler,
    which is exact and repeatable, unlike the resident set; scratch space inside oneDNN and MKL is not seen.
    """
    workload.model.zero_grad(set_to_none=True)
    if device == "cuda":
        cuda.synchronize()
        before = cuda.memory_allocated()
        cuda.reset_peak_memory_stats()
        workload.run()
        cuda.synchronize()
        transient = cuda.max_memory_allocated() - before
    else:
        # Not `torch.profiler`, which turns every event into an object when it stops: three times the call.
        with profile(use_kineto=True, profile_memory=True) as trace:
            workload.run()
        transient = _peak_of_allocations(trace)
    workload.model.zero_grad(set_to_none=True)
    return held_bytes(workload) + transient


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
