"""Fused kernels run in Triton's interpreter; on a GPU they do in tests/gpu."""

from collections.abc import Iterator

import pytest
import torch
from torch._inductor import config as inductor

from flopbench.kernels import cpp, dispatch
from flopbench.kernels.inductor import missing_compiler


@pytest.fixture(autouse=True)
def seed() -> None:
    """The noise of every test is the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Kernels divide their work, also where a worker of pytest-xdist has one thread to compute with."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def device(interpreter: None) -> torch.device:
    """Where the fused kernels run."""
    return torch.device("cpu")


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
