"""Operators in C++: kernels are looked for when they are needed."""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flopbench.kernels import cpp, source_digest
from flopbench.kernels.cpp.depthwise import depthwise
from flopbench.kernels.cpp.gelu import gelu_parts
from flopbench.kernels.transform import POINT

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_kernel_that_cannot_be_compiled_is_an_error(cpp_compiler, monkeypatch, capsys):
    x = [torch.randn(3, 16)]
    expected = gelu_parts(x, POINT)

    def library(name):
        raise OSError(f"no compiler for {name}")

    with monkeypatch.context() as patch:
        patch.setattr(cpp, "library", library)
        cpp.forget()
        with pytest.raises(RuntimeError, match=r"gelu\.cpp could not be compiled"):
            gelu_parts(x, POINT)
    assert "no compiler for gelu" in capsys.readouterr().err
    # What was not found is looked for again.
    torch.testing.assert_close(gelu_parts(x, POINT), expected, rtol=0, atol=0)


def test_other_numbers_are_refused(cpp_compiler):
    with pytest.raises(RuntimeError, match="fp32 or fp64, got Half"):
        gelu_parts([torch.randn(3, 16).half()], POINT)


@pytest.mark.parametrize("name", ["gelu", "operators"])
def test_signatures_that_differ_do_not_compile(cpp_compiler, monkeypatch, name):
    """Neither the kernel nor the operators that call it, where the one is not what the other takes it for."""
    source = cpp._source

    def changed(name, seen):
        text = source(name, seen)
        return (
            re.sub(r"(void gelu_parts_##T)\(int64_t count, ", r"\1(", text)
            if name == "signatures.h"
            else text
        )

    monkeypatch.setattr(cpp, "_source", changed)
    with pytest.raises(RuntimeError, match=r"conflicting (declaration|types)|too many arguments"):
        cpp.library(name)


def test_every_kernel_is_declared_where_operators_see_it():
    for source in Path(cpp.__file__).parent.glob("*.cpp"):
        assert '#include "signatures.h"' in source.read_text(), source.name


@pytest.mark.parametrize(
    "call", [lambda x: gelu_parts([x], POINT)[0], lambda x: depthwise(x, x.new_ones(2, 1, 3, 3), None, False)]
)
def test_what_other_sources_compiled_to_is_not_taken(cpp_compiler, call):
    """The tag is in the keys of what torch keeps on disk, which it makes when a graph is compiled."""
    tags = []

    def backend(graph, inputs):
        tags.append(torch.compiler.config.cache_key_tag)
        return graph

    with torch.compiler.config.patch(cache_key_tag="own"):  # pyright: ignore[reportAttributeAccessIssue]
        for size in (3, 4):
            torch.compile(call, backend=backend, fullgraph=True, dynamic=False)(torch.ones(1, size, size, 2))
    assert tags == 2 * [f"own flopbench {source_digest(Path(cpp.__file__).parent)}"]


def test_any_change_of_a_source_is_in_the_digest(tmp_path):
    sources = Path(cpp.__file__).parents[1]
    copied = Path(
        shutil.copytree(sources, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    )
    assert source_digest() == source_digest(sources) == source_digest(copied)
    sources = ("linear.py", "cpp/linear.py", "cpp/operators.cpp", "cpp/tile.h", "triton/linear.py")
    for name in (*sources, "measured.json"):
        before = source_digest(copied)
        (copied / name).write_text((copied / name).read_text() + "\n")
        assert source_digest(copied) != before


FAULTS = """
import resource
import torch
from flopbench.kernels.cpp import load

load()
for done in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    parts = [torch.ones(1 << 20) for _ in range(12)]
    del parts
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another library's heap")
def test_features_in_parts_do_not_fault_their_pages_in_anew(cpp_compiler):
    """In a process that has freed nothing large; 12 parts have 12 × 1024 pages."""
    faults = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    assert int(faults.stdout) < 1024
