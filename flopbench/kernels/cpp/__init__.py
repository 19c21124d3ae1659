"""Versions for a CPU in C++, where what torch and inductor have is far from the device's peak.

The source is compiled when it is first needed, as inductor compiles what it generates: with its flags for
this CPU, into its cache. `at::vec` is torch's own vector type, so one source serves every instruction set.
"""

import ctypes
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {torch.float32: "float", torch.float64: "double"}
"""What the functions of a library are called for each dtype."""


@cache
def library(name: str) -> ctypes.CDLL:
    """The functions of `name`.cpp beside this file, compiled unless they are in the cache."""
    from torch._inductor.codecache import CppCodeCache

    return CppCodeCache.load(_source(f"{name}.cpp", set()))


def _source(name: str, seen: set[str]) -> str:
    """A file with those it includes in their places: it is compiled elsewhere, where it has no neighbours."""
    if name in seen:
        return ""
    seen.add(name)
    text = (Path(__file__).parent / name).read_text()
    return re.sub(r'#include "(\w+\.h)"', lambda include: _source(include[1], seen), text)


Argument = int | Tensor | None | Sequence[Tensor | None] | tuple[int, ...]


def run(source: str, function: str, dtype: torch.dtype, *arguments: Argument) -> None:
    """Call a function of `library(source)`.

    Args:
        source: its file.
        function: its name without the dtype's, which follows it.
        dtype: of all tensors, which are dense.
        arguments: numbers and flags, int64 there; tensors, where they begin; lists of tensors and tuples of
            numbers, arrays of those. None is null.
    """
    getattr(library(source), f"{function}_{DTYPES[dtype]}")(*map(_argument, arguments))


def _argument(value: Argument) -> Any:
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, tuple):
        return (ctypes.c_int64 * len(value))(*value)
    if value is None:
        return None
    return (ctypes.c_void_p * len(value))(*[None if x is None else x.data_ptr() for x in value])
