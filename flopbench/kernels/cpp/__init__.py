"""Versions for a CPU in C++, where what torch and inductor have is far from the device's peak.

The source is compiled when it is first needed, as inductor compiles what it generates: with its flags for
this CPU, into its cache. `at::vec` is torch's own vector type, so one source serves every instruction set.
Torch calls the operators (operators.cpp), and these the kernels, one library each.
"""

import ctypes
import re
import traceback
from functools import cache
from pathlib import Path

import torch
import torch.compiler.config

from flopbench.kernels import source_digest
from flopbench.private import compile_cpp


@torch.compiler.assume_constant_result
def load() -> None:
    """Let torch's operators `flopbench::*` run on a CPU: whatever calls one calls this first.

    Torch keeps what it compiled by the graph that was traced forward, which does not tell what the operators'
    gradients were then, nor their arguments: those of another version would fail. Torch makes its keys once a
    graph is traced, so each holds the sources' digest. Its settings are each thread's own.
    """
    _operators()
    config = torch.compiler.config
    if _tag() not in config.cache_key_tag:
        config.cache_key_tag += _tag()


def library(name: str) -> ctypes.CDLL:
    """The functions of `name`.cpp beside this file, compiled unless they are in inductor's cache."""
    return compile_cpp(_source(f"{name}.cpp", set()))


def forget() -> None:
    """Let every kernel be looked for again where it is next needed: inductor's flags have changed."""
    _operators().forget_kernels()


@cache
def _tag() -> str:
    return f" flopbench {source_digest(Path(__file__).parent)}"


@cache
def _operators() -> ctypes.CDLL:
    operators = library("operators")
    operators.find_kernels_by(_find)
    operators.keep_freed_memory()
    return operators


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
def _find(source: bytes, function: bytes) -> int | None:
    try:
        return ctypes.cast(getattr(library(source.decode()), function.decode()), ctypes.c_void_p).value
    except Exception:
        # There is no way for it past C++, which raises an error of its own.
        traceback.print_exc()
        return None


def _source(name: str, seen: set[str]) -> str:
    """A file with those it includes in their places: it is compiled elsewhere, where it has no neighbours."""
    if name in seen:
        return ""
    seen.add(name)
    text = (Path(__file__).parent / name).read_text()
    return re.sub(r'#include "(\w+\.h)"', lambda include: _source(include[1], seen), text)
