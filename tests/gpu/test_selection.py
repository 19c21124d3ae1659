"""Which tests see a GPU."""

from pathlib import Path

import pytest
import torch

pytest_plugins = "pytester"

TESTS = """
import os
import pytest

@pytest.mark.cuda
def test_of_a_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"

@pytest.mark.slow
def test_of_the_cpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
"""


@pytest.mark.parametrize(
    ("marks", "available", "counts"),
    [
        ("", True, {"passed": 1, "skipped": 1}),
        ("slow", True, {"passed": 1, "deselected": 1}),
        ("not cuda", True, {"passed": 1, "deselected": 1}),
        ("cuda", True, {"passed": 1, "deselected": 1}),
        ("cuda", False, {"skipped": 1, "deselected": 1}),
    ],
)
def test_a_gpu_is_seen_where_it_is_asked_for(pytester, monkeypatch, marks, available, counts):
    monkeypatch.delenv("DEVICE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = cuda\n  slow")
    pytester.makepyfile(TESTS)
    pytester.runpytest_inprocess("-m", marks).assert_outcomes(**counts)
