"""Which version of an operation runs: the eager one that specifies it, or the fused one.

Nothing falls back in silence: `fused` raises where it cannot run, and `auto` is a rule that can be told
beforehand from the tensors and from whether a compiler is tracing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import get_args

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError
from flopbench.kernels import Impl

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def use_fused(impl: Impl, *tensors: Tensor) -> bool:
    """Whether the fused version of an operation is to run on `tensors`.

    Args:
        impl: "eager", the specification; "fused", the Triton kernel; "auto", the kernel for CUDA tensors of
            fp32, bf16 or fp16 where Triton is installed, unless torch.compile is tracing: the compiler
            fuses the eager operations itself, with their neighbours too, which a kernel would keep apart.
        tensors: what the operation is to read.

    Raises:
        FlopbenchError: "fused" where the kernel cannot run.
    """
    if impl == "eager":
        return False
    if impl == "auto":
        if torch.compiler.is_compiling() or not all(x.is_cuda and x.dtype in _DTYPES for x in tensors):
            return False
        return _triton()[0] is None
    if (reason := _obstacle(*tensors)) is not None:
        raise FlopbenchError(f"impl='fused' cannot run: {reason}; use impl='auto' or 'eager'")
    return True


def _obstacle(*tensors: Tensor) -> str | None:
    """Why the kernels cannot run on `tensors`; meta tensors have nothing to compute and pass."""
    missing, interpreted = _triton()
    if missing is not None:
        return f"Triton is not installed ({missing})"
    for x in tensors:
        if not (x.is_cuda or x.is_meta or interpreted):
            return f"Triton kernels run on CUDA tensors, got one on {x.device.type}"
        # Double precision is for checks of gradients; on a GPU nothing is gained by it.
        if x.dtype not in (*_DTYPES, torch.float64):
            return f"Triton kernels take fp32, bf16, fp16 and fp64, got {str(x.dtype).removeprefix('torch.')}"
    return None


@torch.compiler.assume_constant_result
def _triton() -> tuple[str | None, bool]:
    """Why Triton cannot be imported, or None; and whether its interpreter stands in for a GPU."""
    return _load()


@cache
def _load() -> tuple[str | None, bool]:
    try:
        return None, import_module("flopbench.kernels.triton").INTERPRETED
    except ImportError as error:
        return str(error), False


def select(model: nn.Module, impl: Impl) -> None:
    """Let every layer of `model` that has a choice run the version `impl`, in place."""
    for module in model.modules():
        if hasattr(module, "impl"):
            module.impl = impl  # pyright: ignore[reportArgumentType]


@contextmanager
def specified(model: nn.Module) -> Iterator[None]:
    """Within it, every layer of `model` runs the eager operations, which say what is right."""
    chosen = [(m, m.impl) for m in model.modules() if getattr(m, "impl", None) in get_args(Impl)]
    select(model, "eager")
    try:
        yield
    finally:
        for module, impl in chosen:
            module.impl = impl


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """`tensors` in the dtype that autocast would give a matrix product of theirs; they stay without it."""
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in tensors)
