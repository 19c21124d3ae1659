"""A suite over a Slurm array: each task measures one shard, `flopbench merge` joins them."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from flopbench.errors import FlopbenchError


def shard_command(arguments: Sequence[str], shard: int, shards: int) -> list[str]:
    """The command of one shard (1…`shards`) of `flopbench run ARGUMENTS`."""
    return [sys.executable, "-m", "flopbench", "run", *arguments, "--shard", f"{shard}/{shards}"]


def submit(
    arguments: Sequence[str], shards: int, logs: Path, *, cluster: str = "slurm", options: dict[str, Any]
) -> list[Any]:
    """Submit `flopbench run ARGUMENTS` as an array of `shards` tasks.

    Args:
        arguments: of `flopbench run`; the shard is added.
        shards: number of tasks.
        logs: folder for submitit's files.
        cluster: "slurm", or "local" for processes on this machine.
        options: submitit's parameters, e.g. `{"timeout_min": 240, "slurm_partition": "gpu"}`.

    Returns:
        submitit's jobs, in the order of the shards.

    Raises:
        FlopbenchError: submitit or Slurm is not there, or it refuses an option.
    """
    if shards < 1:
        raise FlopbenchError(f"--shards must be at least 1, got {shards}")
    try:
        submitit = import_module("submitit")
    except ImportError:
        raise FlopbenchError("submitting needs submitit: pip install 'flopbench[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(**options)
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise FlopbenchError(f"submitit: {str(error).splitlines()[0]}") from None
    with executor.batch():
        return [
            executor.submit(submitit.helpers.CommandFunction(shard_command(arguments, shard, shards)))
            for shard in range(1, shards + 1)
        ]
