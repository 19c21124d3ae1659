"""Which tests see a GPU, and that what one fails for is on disk at once."""

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


FAILING = """
import os
import pytest

@pytest.fixture
def broken():
    raise ValueError("what it is given")

def test_that_fails():
    assert 1 == 2, "the reason"

def test_that_is_given_what_fails(broken):
    pass

def test_that_sees_it():
    pass
"""


@pytest.mark.parametrize("processes", [[], ["-n", "2"]])
def test_a_failure_is_on_disk_with_its_reason(pytester, monkeypatch, tmp_path: Path, processes: list[str]):
    if processes:
        pytest.importorskip("xdist")
    monkeypatch.setenv("OUT", str(tmp_path))
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makepyfile(test_one=FAILING, test_other="import no_such_module")
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--continue-on-collection-errors", *processes)
    text = (tmp_path / "failures.txt").read_text()
    assert text.count("== test_one.py::test_that_fails\n") == 1
    assert "AssertionError: the reason" in text
    assert text.count("== test_one.py::test_that_is_given_what_fails\n") == 1
    assert "ValueError: what it is given" in text
    assert text.count("== test_other.py\n") == 1
    assert "no_such_module" in text
    assert "test_that_sees_it" not in text
