"""Tests mean the CPU. Those of a GPU are marked `cuda` and are a run of their own: `pytest -m cuda`.

Of their own, for Triton decides once in a process whether it compiles kernels or interprets them. DEVICE=cpu
and TRITON_INTERPRET=1 take that run to the CPU, tiny: a GPU's minutes are not to be lost to a typing error.
"""

import os
import re
from importlib import import_module
from pkgutil import iter_modules
from unittest import mock

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPU, also from the processes that tests start: commands without `--device` would take it."""
    if not _of_a_gpu(config):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests of a GPU where there is none."""
    if not _of_a_gpu(config):
        reason = "needs a GPU in a run of its own: pytest -m cuda"
    elif os.environ.get("DEVICE") != "cpu" and not torch.cuda.is_available():
        reason = "no GPU is visible"
    else:
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason=reason))


def _of_a_gpu(config: pytest.Config) -> bool:
    return re.search(r"(?<!not )\bcuda\b", config.option.markexpr) is not None


@pytest.fixture(scope="session")
def interpreter() -> None:
    """Our kernels in Triton's interpreter, which has to be asked for before they are defined."""
    pytest.importorskip("triton", reason="Triton is not installed: this build of torch is for the CPU")
    with mock.patch.dict(os.environ, {"TRITON_INTERPRET": "1"}):
        room = import_module("flopbench.kernels.triton")
        for module in iter_modules(room.__path__, f"{room.__name__}."):
            import_module(module.name)
    assert room.INTERPRETED
