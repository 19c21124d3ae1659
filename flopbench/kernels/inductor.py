"""Fused versions for a CPU: the eager operation itself, compiled by inductor to one loop over memory.

The specification is the kernel's source, so there is no second text to keep in step with it. What
torch.compile does to a whole network is done here to one operation. Forward in fp32, ViT-B's sizes at batch
8, two cores of an AMD EPYC, torch 2.13, two runs of tests/benchmarks/test_kernels.py: the norm is 1.6 and 2.8
times as fast as its eager operations, the norm of a sum 1.3 and 2.3 times, halves' GELU 3.5 and 3.7 times.
"""

import shutil
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from flopbench.private import cpp_compilers


def compiled(operation: Callable[..., Any], *tensors: Tensor) -> Callable[..., Any]:
    """`operation`, compiled for tensors like these on the first call; of any size afterwards.

    What torch.compile does not have it has not: gradients of gradients, and backward passes that retain the
    graph, unless `torch._functorch.config.donated_buffer` is off.

    Args:
        operation: a function of tensors that stands on its own, and of anything else that stays the same.
        tensors: what it is to be called with.
    """
    return _compiled(operation, tensors[0].dtype, tensors[0].ndim, torch.is_grad_enabled())


@cache
def _compiled(operation: Callable[..., Any], *_: Any) -> Callable[..., Any]:
    # torch keeps what it compiled at the code object, and only a few versions of one. Each kind of tensor
    # has a copy of its own, so that none drives out another's.
    assert isinstance(operation, FunctionType)
    own = FunctionType(
        operation.__code__.replace(), operation.__globals__, operation.__name__, operation.__defaults__
    )
    return torch.compile(own, fullgraph=True, dynamic=True)


@cache
def missing_compiler() -> str | None:
    """The C++ compilers that inductor looks for, if there is none of them."""
    wanted = cpp_compilers()
    return None if any(shutil.which(name) for name in wanted) else " or ".join(wanted)
