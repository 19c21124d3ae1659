"""What hangs on torch's private names: one function per need, and a test of each (tests/test_private.py).

What inductor has is imported where it is asked for: that takes a second.
"""

import ctypes
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves


def hooked(module: nn.Module) -> bool:
    """Whether calling `module` runs anything besides its own `forward`.

    Hooks that look on do not count, but where a compiler traces: it cannot tell all of them.
    """
    if (
        module._backward_hooks
        or module._backward_pre_hooks
        or modules._global_backward_hooks
        or modules._global_backward_pre_hooks
    ):
        return True
    forward = (
        module._forward_pre_hooks,
        module._forward_hooks,
        modules._global_forward_pre_hooks,
        modules._global_forward_hooks,
    )
    # Hardly any module has one, and every linear layer asks at every call.
    return any(forward) and (
        torch.compiler.is_compiling()
        or any(not _looks_on(hook) for hooks in forward for hook in hooks.values())
    )


def compiled_alone(module: nn.Module) -> bool:
    """Whether calling `module` calls what its own `compile()` made of it."""
    return module._compiled_call_impl is not None


def looking_on(hook: Callable[..., None]) -> Callable[..., None]:
    """Mark a hook as one that changes nothing: what runs is the same with it as without (`hooked`)."""
    hook.looks_on = True  # pyright: ignore[reportFunctionMemberAccess]
    return hook


def _looks_on(hook: Callable[..., object]) -> bool:
    # fvcore's say in which layer a trace is, and those of torch's counter of FLOPs in which layer a call is.
    origin = getattr(hook, "__module__", None) or ""
    return hasattr(hook, "looks_on") or origin.startswith(("fvcore.", "torch.utils.module_tracker"))


def watched() -> bool:
    """Whether something sees each operator that is called, or changes what calling it means.

    A compiler, exporter or tracer, a mode (counters, fake tensors), a transform of `torch.func`, a profiler.
    """
    # The compiler's check stands first: under it the rest is never traced.
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or torch.autograd._profiler_enabled()  # pyright: ignore[reportPrivateImportUsage]
    )


def has_tangent(tensors: Iterable[Tensor]) -> bool:
    """Whether derivatives of any of `tensors` are taken in forward mode, as `torch.func.jvp` does."""
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(x).tangent is not None for x in tensors
    )


def version(tensor: Tensor) -> int:
    """How often `tensor` was written to in place, as autograd counts it."""
    return tensor._version


def storage_identity(tensor: Tensor) -> int:
    """What tensors have in common that share memory.

    It is of the storage itself, not of its data: two empty tensors have the same data pointer.
    """
    return tensor.untyped_storage()._cdata


def schema(operator: Any) -> Any:
    """The schema of an operator that a dispatch mode is given: returns, and whether it writes in place."""
    return operator._schema


@cache
def pointwise_and_views() -> tuple[frozenset[str], frozenset[str]]:
    """ATen's operators, without the underscore of in-place versions: those torch calls pointwise; views."""
    pointwise, views = set[str](), set[str]()
    for full in torch._C._dispatch_get_all_op_names():
        space, _, name = full.partition("::")
        packet, _, overload = name.partition(".")
        # What is private to a backend, or of the interpreter of TorchScript alone, has no packet.
        operators = getattr(torch.ops.aten, packet, None) if space == "aten" else None
        operator = getattr(operators, overload or "default", None)
        if operator is None:
            continue
        if torch.Tag.pointwise in operator.tags:
            pointwise.add(packet.rstrip("_"))
        returned = [value.alias_info for value in schema(operator).returns]
        if any(info is not None and not info.is_write for info in returned):
            views.add(packet)
    return frozenset(pointwise), frozenset(views)


def has_meta_kernel(operator: str) -> bool:
    """Whether `operator`, e.g. "aten::mm", has a shape function, which the meta device runs."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator, "Meta")


def backward_node() -> Any:
    """The node of autograd's graph whose turn it is in this thread's backward pass; None outside one."""
    return torch._C._current_autograd_node()


def hold_device(cycles: int) -> None:
    """Let the current CUDA device wait for so many cycles of its clock, while the host goes on."""
    torch.cuda._sleep(cycles)


def raw_events(trace: Any) -> Any:
    """The events of a `torch.autograd.profiler.profile`, none made an object of before it is looked at."""
    return trace.kineto_results.events()


def multiplies_bf16_without_tiles() -> bool:
    """Whether this CPU multiplies bf16 in its vectors and has no AMX tiles; False where torch cannot say."""
    bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bf16 is not None and tiles is not None and bf16() and not tiles()


def cpp_compilers() -> list[str]:
    """The C++ compilers that inductor looks for, the first that it finds is taken."""
    from torch._inductor import config

    return [name for name in _flat(config.cpp.cxx) if name]


def _flat(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else [n for item in names or () for n in _flat(item)]


@cache
def compiler_version() -> str | None:
    """The compiler that inductor takes, and its version if it tells, e.g. "g++ 12.2.0"; None without one."""
    found = next((name for name in cpp_compilers() if shutil.which(name)), None)
    return None if found is None else with_version(found)


def with_version(compiler: str) -> str:
    """The name of a program, without its folder, and its version if it tells: "g++ 12.2.0"."""
    told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"\d+(\.\d+)+", told)
    return " ".join([Path(compiler).name, *([number[0]] if number else [])])


def compile_cpp(source: str) -> ctypes.CDLL:
    """A library of `source`, compiled with inductor's flags for this CPU unless it is in inductor's cache."""
    from torch._inductor.codecache import CppCodeCache

    return CppCodeCache.load(source)


def show_kernels_to_profiler() -> None:
    """Let functions that inductor generates for a CPU be events of a profile, in this process."""
    from torch._inductor import config

    config.cpp.enable_kernel_profile = True


def await_compile_processes() -> None:
    """Start the processes in which inductor compiles Triton's kernels, and wait until they are ready."""
    from torch._inductor.async_compile import AsyncCompile

    # Without them it compiles here, which is slower and no fault.
    with suppress(TimeoutError):
        AsyncCompile.wait_pool_ready()


def compile_often() -> None:
    """Let this process compile one function for as many blocks and networks as call it.

    By default the compiler gives up at the ninth kind, and what comes after runs uncompiled: blocks that drop
    paths at rates of their own are of so many kinds, and so are the networks of a race.
    """
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit


def compile_for_others(threads: int) -> None:
    """Let this process fill inductor's cache with code alone, compiling with so many threads.

    Which config of a kernel it finds the fastest it keeps to itself: it finds so beside others at work, and
    the process that measures would take it from the cache.
    """
    from torch._inductor import config

    config.compile_threads = threads
    from torch._inductor.runtime.autotune_cache import AutotuneCache

    AutotuneCache.save = lambda *arguments, **named: None


def compiled_graphs() -> tuple[int, int]:
    """How many graphs this process has compiled so far, and how many it took from inductor's cache."""
    from torch._dynamo.utils import counters

    inductor = counters["inductor"]
    return inductor["fxgraph_cache_miss"] + inductor["fxgraph_cache_bypass"], inductor["fxgraph_cache_hit"]


def graph_breaks() -> list[Any]:
    """Where the compiler left a graph so far: of each break an object with its `reason` and `user_stack`."""
    from torch._dynamo.utils import graph_break_reasons

    return graph_break_reasons


def untraced() -> tuple[int, Counter[str]]:
    """How many functions the compiler left to Python whole so far; how often it met what it cannot trace."""
    from torch._dynamo.utils import counters

    frames = counters["frames"]
    return frames["total"] - frames["ok"], Counter(counters["unimplemented"])


def failed_guards() -> Counter[str]:
    """What did not hold any more of what was compiled, each time that it was compiled again so far."""
    from torch._dynamo.utils import guard_failures

    return Counter(str(failure) for failures in guard_failures.values() for failure in failures)


def generated_files() -> list[str]:
    """The Python files that inductor has written so far, or found in its cache: one or more per graph."""
    # What makes no graphs of inductor's does not wait for its import.
    cache = sys.modules.get("torch._inductor.codecache")
    return [module.__file__ for module in cache.PyCodeCache.modules] if cache else []


def graphs_not_captured() -> int:
    """How many graphs so far were to be replayed as a CUDA graph and cannot be."""
    from torch._dynamo.utils import counters

    return counters["inductor"]["cudagraph_skips"]


def keep_address(tensor: Tensor) -> None:
    """Promise that `tensor` stays where it is: a CUDA graph then reads it there and copies nothing."""
    torch._dynamo.mark_static_address(tensor, guard=False)


def uncaptured() -> AbstractContextManager[Any]:
    """Within it, what is else replayed as a CUDA graph runs kernel by kernel, in the graphs' pool."""
    from torch._inductor import config

    return config.patch({"triton.force_cudagraphs_warmup": True})
