"""What a run is taken on."""

import subprocess
from pathlib import Path

import pytest

from flopbench import __version__
from flopbench.timing.environment import describe


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout


def test_the_commit_is_that_of_the_folder_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert describe("cpu").commit is None
    git("init", "-q")
    (tmp_path / "networks.py").write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "mine")
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    environment = describe("cpu")
    assert environment.commit == git("rev-parse", "HEAD")[:12]
    assert environment.flopbench == __version__
    (tmp_path / "networks.py").write_text("changed = True")
    assert describe("cpu").commit == f"{environment.commit}+"


def test_the_engines_that_are_installed_are_named_with_their_versions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "flopbench.engines.needs.find_spec", lambda name: None if name == "openvino" else name
    )
    monkeypatch.setattr("flopbench.engines.needs.metadata.version", lambda name: f"{name} 1")
    assert describe("cpu").engines == {"onnxruntime": "onnxruntime 1", "tensorrt": "tensorrt 1"}
