"""The examples, and what the documentation says of them."""

import re
from pathlib import Path

import pytest
import torch

import flopbench
from flopbench.suites import load_suite
from flopbench.timing.workload import build_model, cell_inputs, make_workload

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_the_folder_of_examples(monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_suite_of_ones_own_networks_is_one(kind):
    cells = list(load_suite("own_networks.toml").profile(kind).cells(kind))
    assert {cell.pair.id for cell in cells} == {"own_networks:folded@own_networks:small"}


def test_its_networks_run_in_every_pass_and_size():
    device = torch.device("cpu")
    for cell in load_suite("own_networks.toml").profile("cpu").cells("cpu"):
        for name in (cell.pair.baseline, cell.pair.candidate):
            work = make_workload(build_model(name, cell, device), cell_inputs(cell, device), cell)
            work.run()


def test_what_the_documentation_runs_is_right():
    page = (ROOT / "docs" / "own_networks.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(code, {})
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (ROOT / "docs" / link).is_file()


def test_the_folded_network_is_cheap_for_it_is_symmetric():
    """The plain one is not: what the documentation's check says of the other is worth something."""
    images = torch.randn(2, 3, 64, 64)
    with pytest.raises(AssertionError, match="not equivariant"):
        flopbench.assert_equivariant(flopbench.create_model("own_networks:small"), images)
