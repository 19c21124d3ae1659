"""The Slurm array, through submitit's local executor where submitit is installed."""

import sys
from pathlib import Path

import pytest

from flopbench.cli.submit import parse_options
from flopbench.errors import FlopbenchError
from flopbench.runner.cluster import shard_command, submit


def test_each_task_runs_one_shard():
    commands = [shard_command(["--suite", "vit"], shard, 3) for shard in (1, 2, 3)]
    assert commands[1] == [sys.executable, "-m", "flopbench", "run", "--suite", "vit", "--shard", "2/3"]
    assert len({tuple(command) for command in commands}) == 3


def test_options_are_read():
    assert parse_options(["timeout_min=60", "slurm_partition=gpu"]) == {
        "timeout_min": 60,
        "slurm_partition": "gpu",
    }
    with pytest.raises(FlopbenchError, match="--set 'gpu' is not name=value"):
        parse_options(["gpu"])


def test_without_submitit_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(FlopbenchError, match=r"flopbench\[slurm\]"):
        submit([], 2, tmp_path, options={})
    with pytest.raises(FlopbenchError, match="at least 1, got 0"):
        submit([], 0, tmp_path, options={})


def test_shards_run_as_jobs(tmp_path: Path):
    pytest.importorskip("submitit")
    jobs = submit(["--suite", "absent"], 2, tmp_path, cluster="local", options={"timeout_min": 5})
    for job in jobs:
        assert "unknown suite 'absent'" in str(job.exception())
