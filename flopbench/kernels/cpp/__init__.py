"""Versions for a CPU in C++, where what torch and inductor have is far from the device's peak.

The source is compiled when it is first needed, as inductor compiles what it generates: with its flags for
this CPU, into its cache. `at::vec` is torch's own vector type, so one source serves every instruction set.
"""

import ctypes
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {torch.float32: "float", torch.float64: "double"}
"""What the functions of a library are called for each dtype."""


@cache
def library(name: str) -> ctypes.CDLL:
    """The functions of `name`.cpp beside this file, compiled unless they are in the cache."""
    from torch._inductor.codecache import CppCodeCache

    here = Path(__file__).parent
    # What is compiled lies elsewhere, where it would find no neighbour.
    source = re.sub(
        r'#include "(\w+\.h)"',
        lambda include: (here / include[1]).read_text(),
        (here / f"{name}.cpp").read_text(),
    )
    return CppCodeCache.load(source)


def pointer(x: Tensor | None) -> ctypes.c_void_p:
    """Where `x` begins, as an argument; None is null. It has to outlive the call, and be dense."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Where each of the tensors begins, as an argument. See `pointer`."""
    return (ctypes.c_void_p * len(tensors))(*map(pointer, tensors))


def integers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    """`values` as an argument: an array of int64."""
    return (ctypes.c_int64 * len(values))(*values)
