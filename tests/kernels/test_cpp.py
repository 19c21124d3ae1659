"""Operators in C++: kernels are looked for when they are needed."""

import pytest
import torch

from flopbench.kernels import cpp
from flopbench.kernels.cpp.gelu import gelu_parts

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_kernel_that_cannot_be_compiled_is_an_error(cpp_compiler, monkeypatch, capsys):
    x = [torch.randn(3, 16)]
    expected = gelu_parts(x)

    def library(name):
        raise OSError(f"no compiler for {name}")

    with monkeypatch.context() as patch:
        patch.setattr(cpp, "library", library)
        cpp.forget()
        with pytest.raises(RuntimeError, match=r"gelu\.cpp could not be compiled"):
            gelu_parts(x)
    assert "no compiler for gelu" in capsys.readouterr().err
    # What was not found is looked for again.
    torch.testing.assert_close(gelu_parts(x), expected, rtol=0, atol=0)


def test_other_numbers_are_refused(cpp_compiler):
    with pytest.raises(RuntimeError, match="fp32 or fp64, got Half"):
        gelu_parts([torch.randn(3, 16).half()])
