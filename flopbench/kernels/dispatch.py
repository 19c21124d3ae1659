"""Which version of an operation runs: the eager one that specifies it, or a fused one.

Fused is the Triton kernel on a GPU, and on a CPU the eager operation compiled by inductor, or C++ where that
is not enough. Nothing falls back in silence: `fused` raises where it cannot run, and `auto` is a rule that
can be told beforehand from the tensors and from whether a compiler is tracing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError
from flopbench.kernels import Impl
from flopbench.kernels.inductor import missing_compiler

Version = Literal["eager", "triton", "inductor"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def version(impl: Impl, *tensors: Tensor) -> Version:
    """Which version of an operation is to run on `tensors`.

    Args:
        impl: "eager", the specification; "fused", the Triton kernel for CUDA tensors and inductor's for those
            on a CPU; "auto", the Triton kernel for CUDA tensors of fp32, bf16 or fp16 where Triton is
            installed, otherwise the eager operations: a call on a CPU does not wait for a C++ compiler
            unless asked to.
            Where torch.compile is tracing, "auto" is eager, and so is "fused" on a CPU: the compiler fuses
            the eager operations itself, with their neighbours too, which a kernel would keep apart.
        tensors: what the operation is to read.

    Raises:
        FlopbenchError: "fused" where no kernel can run.
    """
    if impl == "eager":
        return "eager"
    if impl == "auto":
        if torch.compiler.is_compiling() or not all(x.is_cuda and x.dtype in _DTYPES for x in tensors):
            return "eager"
        return "triton" if _triton()[0] is None else "eager"
    found, obstacle = _fused(*tensors)
    if obstacle is not None:
        raise FlopbenchError(f"impl='fused' cannot run: {obstacle}; use impl='auto' or 'eager'")
    return found


def _fused(*tensors: Tensor) -> tuple[Version, str | None]:
    """The fused version for `tensors`, and what it lacks.

    Meta tensors have nothing to compute: Triton's operators say what they would, and where they are not to be
    had, nothing is lost on the eager ones.
    """
    for x in tensors:
        # Double precision is for checks of gradients; on a GPU nothing is gained by it.
        if x.dtype not in (*_DTYPES, torch.float64):
            kind = str(x.dtype).removeprefix("torch.")
            return "eager", f"kernels take fp32, bf16, fp16 and fp64, got {kind}"
        if x.device.type not in ("cuda", "cpu", "meta"):
            return "eager", f"kernels run on CUDA and CPU tensors, got one on {x.device.type}"
    missing, interpreted = _triton()
    if not interpreted and all(x.device.type == "cpu" for x in tensors):
        if torch.compiler.is_compiling():
            return "eager", None
        lacking = missing_compiler()
        return "inductor", None if lacking is None else f"no C++ compiler is installed ({lacking})"
    if missing is not None and all(x.is_meta for x in tensors):
        return "eager", None
    return "triton", None if missing is None else f"Triton is not installed ({missing})"


def in_cpp(impl: Impl, x: Tensor) -> bool:
    """Whether an operation that has a version in C++ is to run it on `x`.

    It is on a CPU, in fp32 or fp64, with `impl="fused"`, and with "auto" where torch.compile is tracing and
    there is the compiler that inductor needs too. What is exported keeps to torch's own operators.

    Raises:
        FlopbenchError: "fused" without a compiler.
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    if not torch.compiler.is_compiling():
        return impl == "fused" and version(impl, x) == "inductor"
    asked = impl == "auto" or (impl == "fused" and version(impl, x) == "eager")
    return asked and not _exporting() and _has_compiler()


def parts_in_cpp(impl: Impl, parts: Sequence[Tensor]) -> bool:
    """Whether an operation on all parts of a feature at once is to run in C++.

    It is where C++ runs (`in_cpp`) and was found faster, for parts of one shape that hold something.

    Raises:
        FlopbenchError: "fused" without a compiler.
    """
    x = parts[0]
    return (
        all(part.shape == x.shape for part in parts)
        and x.numel() > 0
        and library_is_slower()
        and in_cpp(impl, x)
    )


@torch.compiler.assume_constant_result
def library_is_slower() -> bool:
    """Whether C++ was found faster than what torch has for the same: on AMD's and Intel's CPUs with AVX-512.

    Of others there are no figures.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


@torch.compiler.assume_constant_result
def _exporting() -> bool:
    """Asked outside the trace: within one, torch 2.11 says yes whatever it traces for."""
    return torch.compiler.is_exporting()


@torch.compiler.assume_constant_result
def _has_compiler() -> bool:
    return missing_compiler() is None


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
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in tensors)
