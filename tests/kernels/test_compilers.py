"""What Triton needs to build its launchers, and how its lack is told before anything is built."""

from pathlib import Path

import pytest
import torch

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.kernels import compilers, dispatch
from flopbench.kernels.layer_norm import layer_norm_parts
from flopbench.pairs import Pair
from flopbench.runner import worker
from flopbench.runner.needs import warnings
from tests.support.runs import CPU, H200, environment


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs, and CC unset; Python's headers are there."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compilers.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(compilers, "missing_c_compiler", compilers.missing_c_compiler.__wrapped__)
    return tmp_path


def install(folder: Path, name: str) -> str:
    (folder / name).touch(mode=0o755)
    return str(folder / name)


def test_the_compiler_is_found_as_triton_finds_it(programs: Path, monkeypatch: pytest.MonkeyPatch):
    assert compilers.c_compiler() is None
    assert "install one, or name another in CC" in str(compilers.missing_c_compiler())
    clang = install(programs, "clang")
    assert compilers.c_compiler() == clang
    gcc = install(programs, "gcc")
    assert compilers.c_compiler() == gcc
    assert compilers.missing_c_compiler() is None
    monkeypatch.setenv("CC", "mycc")
    assert compilers.c_compiler() is None
    assert compilers.missing_c_compiler() == "CC names 'mycc', which is not there: install it, or unset CC"
    mine = install(programs, "mycc")
    assert compilers.c_compiler() == mine


def test_headers_of_python_are_needed_too(programs: Path):
    install(programs, "gcc")
    (programs / "Python.h").unlink()
    assert "python3-dev" in str(compilers.missing_c_compiler())


def cell(**changes: str) -> Cell:
    fields = {"device": "cuda", "batch_size": 2, "pass": "forward", "dtype": "bf16", "mode": "compile"}
    return Cell.model_validate({"pair": Pair.of("vit_ti16.flop"), **fields, **changes})


def test_a_compiled_cell_on_a_gpu_says_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compilers, "missing_c_compiler", lambda: "no gcc")
    monkeypatch.setattr(compilers, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs Triton.*pip install triton.*--mode eager"):
        worker.require_compiler(cell())
    monkeypatch.setattr(compilers, "find_spec", lambda name: "triton")
    with pytest.raises(RuntimeError, match=r"Triton needs a C compiler: no gcc; or use --mode eager"):
        worker.require_compiler(cell(mode="cuda-graph"))
    worker.require_compiler(cell(mode="eager"))
    monkeypatch.setattr(compilers, "missing_c_compiler", lambda: None)
    worker.require_compiler(cell())


def test_a_run_says_what_is_missing_before_it_begins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compilers, "find_spec", lambda name: "triton")
    monkeypatch.setattr(compilers, "missing_c_compiler", lambda: "no gcc")
    cells = [cell(mode=mode) for mode in ("eager", "compile", "cuda-graph")]
    (line,) = warnings(cells, environment(H200))
    assert line.startswith("2 of 3 cells will fail: torch.compile needs Triton on a GPU")
    monkeypatch.setattr(compilers, "missing_c_compiler", lambda: None)
    assert warnings(cells, environment(H200)) == []
    (line,) = warnings([cell(mode="aot-inductor")], environment(H200, compiler=None))
    assert line.startswith("1 of 1 cells will fail: AOTInductor needs a C++ compiler")
    here = [cell(device="cpu", dtype="fp32")]
    assert warnings(here, environment(CPU, compiler="g++ 12.2.0")) == []
    (line,) = warnings(here, environment(CPU, compiler=None))
    assert line.startswith("1 of 1 cells will fail: torch.compile needs a C++ compiler")


def test_kernels_in_triton_say_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dispatch, "_load", lambda: (None, False))
    monkeypatch.setattr(dispatch, "missing_c_compiler", lambda: "no gcc")
    halves = torch.ones(1, 1, 2, device="meta"), torch.ones(1, 1, 2, device="meta")
    weights = tuple(torch.ones(2, device="meta") for _ in range(3))
    with pytest.raises(FlopbenchError, match=r"Triton needs a C compiler \(no gcc\); use impl='auto' or"):
        layer_norm_parts(halves, weights, 1e-6, (1, 1), "fused")
