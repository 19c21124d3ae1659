"""The composite action and the workflows: the script runs as GitHub runs it, and every option exists."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from flopbench.cli import app
from flopbench.regression.exact import measure_exact
from flopbench.suites import load_suite
from tests.regression import tiny

GITHUB = Path(__file__).parents[2] / ".github"
ACTION = GITHUB / "actions/flopbench-gate/action.yml"
WORKFLOWS = [*sorted((GITHUB / "workflows").glob("*.yml")), ACTION.with_name("example-workflow.yml")]


def _load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


@pytest.fixture
def gate_step(tmp_path: Path):
    """Run the action's step that gates, with these inputs beside the defaults."""
    command = tmp_path / "bin/flopbench"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from flopbench.cli import main; main()" "$@"\n')
    command.chmod(0o755)
    action = _load(ACTION)
    step = next(step for step in action["runs"]["steps"] if "flopbench gate" in step.get("run", ""))
    defaults = {name: given.get("default", "") for name, given in action["inputs"].items()}

    def run(**inputs: str) -> subprocess.CompletedProcess[str]:
        values = {**defaults, **inputs}
        filled = {
            name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda match: values[match[1]], text)
            for name, text in step["env"].items()
        }
        (tmp_path / "script.sh").write_text(step["run"])
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "script.sh"],
            cwd=tmp_path,
            env={
                **os.environ,
                **filled,
                "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(GITHUB.parent),
                "CI": "true",
                "GITHUB_ACTIONS": "true",
                "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_action_gates_tells_github_and_leaves_its_files(gate_step, tmp_path: Path):
    (tmp_path / "tiny.toml").write_text(tiny.TOML % tiny.PAIR)
    first = gate_step(suite="tiny.toml", device="cpu")
    assert first.returncode == 3
    assert "no exact baseline" in first.stderr
    baseline = tmp_path / "results/baselines/tiny/exact.json"
    measure_exact("tiny", load_suite(str(tmp_path / "tiny.toml")).profile("cpu")).write(baseline)
    baseline.write_text(re.sub(r'"macs": ?(\d+)', '"macs": 1', baseline.read_text()))
    failed = gate_step(suite="tiny.toml", device="cpu", strict="true", quick="false")
    assert failed.returncode == 1, failed.stderr
    assert "::error title=" in failed.stdout
    assert "❌ fail" in (tmp_path / "summary.md").read_text()
    for name in ("comparison.json", "comparison.md", "junit.xml"):
        assert (tmp_path / "gate-output" / name).is_file()


def test_an_input_is_data_and_never_a_command(gate_step, tmp_path: Path):
    done = gate_step(suite="$(touch made); touch made #")
    assert done.returncode == 2
    assert not (tmp_path / "made").exists()


def test_workflows_give_the_action_inputs_that_it_has():
    action = _load(ACTION)
    for workflow in WORKFLOWS:
        for job in _load(workflow)["jobs"].values():
            for step in job["steps"]:
                if "flopbench-gate" in step.get("uses", ""):
                    assert set(step["with"]) <= set(action["inputs"])
                    assert {n for n, given in action["inputs"].items() if given.get("required")} <= set(
                        step["with"]
                    )


def test_the_action_installs_the_source_that_it_is_part_of():
    action = _load(ACTION)
    (step,) = (step for step in action["runs"]["steps"] if step.get("run") == "${{ inputs.install }}")
    source = step["env"]["FLOPBENCH"].replace("${{ github.action_path }}", str(ACTION.parent))
    assert Path(source).resolve() == GITHUB.parent.resolve()
    assert action["inputs"]["install"]["default"] == 'pip install "$FLOPBENCH"'
    example = WORKFLOWS[-1].read_text()
    assert "flopbench-gate@COMMIT" in example
    assert "pip install flopbench" not in example


def test_every_option_in_a_script_exists():
    gate = typer.main.get_command(app).commands["gate"]  # pyright: ignore[reportAttributeAccessIssue]
    known = {option for parameter in gate.params for option in parameter.opts}
    for file in (ACTION, *WORKFLOWS):
        for line in file.read_text().splitlines():
            if "flopbench gate" in line or "options" in line:
                assert set(re.findall(r"(?<=[\s(])--[a-z-]+", line)) <= known, line
