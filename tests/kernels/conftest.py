"""Fused kernels run on a GPU where there is one, and in Triton's interpreter where there is none."""

import os
from importlib import import_module
from unittest import mock

import pytest
import torch
from torch._inductor import config as inductor

from flopbench.kernels import cpp, dispatch
from flopbench.kernels.inductor import missing_compiler

MODULES = ("layer_norm", "mirror_gelu", "heads", "linear")


@pytest.fixture(autouse=True)
def seed() -> None:
    """The noise of every test is the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the fused kernels run. Triton decides for its interpreter when a kernel is defined."""
    pytest.importorskip("triton", reason="Triton is not installed: this build of torch is for the CPU")
    cuda = torch.cuda.is_available()
    with mock.patch.dict(os.environ, {} if cuda else {"TRITON_INTERPRET": "1"}):
        for module in MODULES:
            import_module(f"flopbench.kernels.triton.{module}")
    assert import_module("flopbench.kernels.triton").INTERPRETED is not cuda
    return torch.device("cuda" if cuda else "cpu")


@pytest.fixture
def cpp_compiler() -> None:
    """What inductor needs on a CPU."""
    if missing_compiler() is not None:
        pytest.skip("no C++ compiler is installed")


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch, cpp_compiler: None) -> None:
    """As where the build of torch is for the CPU: Triton's interpreter would stand in otherwise."""
    monkeypatch.setattr(dispatch, "_load", lambda: ("No module named 'triton'", False))


@pytest.fixture(params=[None, 256])
def instructions(request, cpp_compiler):
    """The kernel for this CPU's vectors, and the one for AVX2's, which has tiles of another shape."""
    if request.param == 256 and not torch.cpu._is_avx2_supported():
        pytest.skip("AVX2 is x86's")
    with inductor.patch({"cpp.simdlen": request.param}):
        cpp.forget()
        yield
    cpp.forget()
