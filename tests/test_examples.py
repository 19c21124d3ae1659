"""The examples, and what the documentation says of them."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import flopbench
from examples import build
from flopbench.suites import load_suite
from flopbench.timing.workload import build_model, cell_inputs, make_workload

ROOT = Path(__file__).parent.parent
EXAMPLES, DOCS = build.EXAMPLES, build.DOCS


@pytest.fixture(autouse=True)
def in_the_folder_of_examples(monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of what is started there
    yield
    sys.modules.pop("own_networks", None)


@pytest.fixture
def quickly(monkeypatch):
    """What is measured is one cell, and hardly that; what pytest would measure is only checked. What is
    trained is neither compiled nor kept.
    """
    benchmark, train = flopbench.benchmark, flopbench.train

    def quick(*args: Any, **options: Any) -> Any:
        return benchmark(
            *args,
            **{**options, "batch_sizes": 1, "passes": ["forward"], "cell_seconds": 0.1, "precision": 0.99},
        )

    def briefly(*args: Any, **options: Any) -> Any:
        return train(*args, **{**options, "results": None, "mode": "eager"})

    monkeypatch.setattr(flopbench, "benchmark", quick)
    monkeypatch.setattr(flopbench, "train", briefly)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--benchmark-disable")


@pytest.mark.parametrize(
    "topic",
    # It starts pytest, in a process of its own.
    [pytest.param(topic, marks=[pytest.mark.slow] * (topic == "regression_test")) for topic in build.TOPICS],
)
def test_every_script_runs(topic, quickly, capsys):
    left = runpy.run_path(f"{topic}.py", run_name="__main__")
    assert capsys.readouterr().out
    if topic == "regression_test":
        assert "test_merged_layers_are_faster" in left["printed"]
        assert "1 passed" not in left["printed"]


@pytest.mark.parametrize("topic", build.TOPICS)
def test_a_notebook_is_its_script_and_was_run(topic):
    expected, notebook = build.notebook_of(topic), build.committed(topic)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in expected.cells
    ]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("topic", build.TOPICS)
def test_a_notebook_is_small_and_holds_no_path(topic):
    text = (EXAMPLES / f"{topic}.ipynb").read_text(encoding="utf-8")
    assert len(text) < 200_000
    assert not re.findall(r"/(?:tmp|home|root|Users|usr)/", text)


@pytest.mark.slow
@pytest.mark.parametrize("topic", build.TOPICS)
def test_a_notebook_gives_the_same_kinds_of_output_when_it_is_run(topic):
    """Nothing but what was measured may differ, so neither do the kinds of output."""

    def kinds(notebook: Any) -> list[list[str]]:
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        return [
            [kind for output in cell.outputs for kind in sorted(output.get("data", ["text"]))]
            for cell in cells
        ]

    assert kinds(build.run(build.notebook_of(topic))) == kinds(build.committed(topic))


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_a_page_shows_what_the_notebooks_give(page):
    text, pictures = page.read_text(encoding="utf-8"), {}
    assert build.documented(text, pictures) == text
    for name, picture in pictures.items():
        assert (DOCS / name).read_bytes() == picture
    for link in re.findall(r"\]\((?!https?://|#)([^)]+)\)", text):
        assert (DOCS / link.partition("#")[0]).exists()


def test_a_page_that_shows_something_else_is_renewed():
    page = "before\n<!-- pandas_frame: group -->\nstale\n<!-- end -->\nafter"
    renewed = build.documented(page, {})
    assert "stale" not in renewed
    assert "print(means" in renewed
    assert renewed.startswith("before\n<!-- pandas_frame: group -->\n")
    assert renewed.endswith("<!-- end -->\nafter")


def test_the_python_of_the_pages_runs(quickly):
    """What is not shown from the notebooks, which are run by themselves; a page is read from its top."""
    for page in DOCS.glob("*.md"):
        text = re.sub(r"<!-- \w+: .*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        names: dict[str, Any] = {}
        for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
            exec(code, names)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_suite_of_ones_own_networks_is_one(kind):
    cells = list(load_suite("own_networks.toml").profile(kind).cells(kind))
    named = {(cell.pair.baseline, cell.pair.candidate) for cell in cells}
    assert named == {("own_networks:separate", "own_networks:merged")}


def test_its_networks_are_the_same_and_run_in_every_pass():
    device = torch.device("cpu")
    for cell in load_suite("own_networks.toml").profile("cpu").cells("cpu"):
        inputs = cell_inputs(cell, device)
        networks = [
            build_model(name, cell, device).eval() for name in (cell.pair.baseline, cell.pair.candidate)
        ]
        logits = [inputs.call(network)["logits"] for network in networks]
        torch.testing.assert_close(*logits)
        for network in networks:
            make_workload(network, inputs, cell).run()
