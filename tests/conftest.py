"""Tests mean the CPU. Those of a GPU are marked `cuda` and are a run of their own: `pytest -m cuda`.

Of their own, for Triton decides once in a process whether it compiles kernels or interprets them. DEVICE=cpu
and TRITON_INTERPRET=1 take that run to the CPU, tiny: a GPU's minutes are not to be lost to a typing error.

The whole suite, a folder of it, and the slow tests are shared out to processes (pytest-xdist). What measures
or is of a GPU has the machine to itself. `-n` says otherwise.
"""

import os
import re
import signal
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any
from unittest import mock

import pytest
import torch

# Each of them imports torch, and compiles at times: memory is to suffice also where there are many cores.
MOST_WORKERS = 4


@pytest.hookimpl(optionalhook=True)  # A GPU's machine may lack pytest-xdist.
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes share the tests out; with 0 they run in this one."""
    alone = _asks_for(config, "cuda") or config.getoption("benchmark_enable", False)
    few = all(Path(argument.partition("::")[0]).is_file() for argument in config.args)
    return 0 if alone or few else min(_cores(), MOST_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPU, also from the processes that tests start: commands without `--device` would take it.

    Workers share the cores: each, and what it starts, computes with as many threads as fall to it.
    """
    # Under nohup and in a shell's background they are ignored, and would be by processes that tests stop.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _asks_for(config, "cuda"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Readline, which pytest imports, tells the workers how wide a terminal is: tests say so themselves.
    os.environ.pop("COLUMNS", None)
    if workers := config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // workers)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests of a GPU where there is none."""
    if not _asks_for(config, "cuda"):
        reason = "needs a GPU in a run of its own: pytest -m cuda"
    elif os.environ.get("DEVICE") != "cpu" and not torch.cuda.is_available():
        reason = "no GPU is visible"
    else:
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason=reason))


def _asks_for(config: pytest.Config, marks: str) -> bool:
    return re.search(rf"(?<!not )\b({marks})\b", config.option.markexpr) is not None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(scope="session")
def interpreter() -> None:
    """Our kernels in Triton's interpreter, which has to be asked for before they are defined."""
    pytest.importorskip("triton", reason="Triton is not installed: this build of torch is for the CPU")
    assert _interpreted().INTERPRETED


@pytest.fixture(scope="session", autouse=True)
def interpreted_in_workers(request: pytest.FixtureRequest) -> None:
    """A worker begins anywhere: none of its tests may define kernels for a GPU before one interprets them."""
    if "PYTEST_XDIST_WORKER" in os.environ and not _asks_for(request.config, "cuda"):
        with suppress(ImportError):
            _interpreted()


def _interpreted() -> Any:
    with mock.patch.dict(os.environ, {"TRITON_INTERPRET": "1"}):
        room = import_module("flopbench.kernels.triton")
        for module in iter_modules(room.__path__, f"{room.__name__}."):
            import_module(module.name)
    return room
