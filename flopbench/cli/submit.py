"""`flopbench submit`."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from flopbench.cli.console import echo
from flopbench.errors import FlopbenchError


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """submitit's parameters from `name=value`; whole numbers become integers.

    Raises:
        FlopbenchError: not of that form.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name.isidentifier() and equals and value):
            raise FlopbenchError(f"--set {pair!r} is not name=value, e.g. --set slurm_partition=gpu")
        options[name] = int(value) if re.fullmatch(r"[0-9]{1,18}", value) else value
    return options


def submit(
    shards: Annotated[int, typer.Option(min=1, max=10_000, help="Tasks of the array.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="Arguments of `flopbench run`, after --.", metavar="-- RUN-ARGUMENTS"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of submitit, name=value; repeatable.")
    ] = None,
    cluster: Annotated[str, typer.Option(help="slurm, or local to try it here.")] = "slurm",
    logs: Annotated[Path, typer.Option(help="Folder for submitit's logs.")] = Path("slurm-logs"),
) -> None:
    """Measure a suite as a Slurm array, one shard a task; join them with `flopbench merge`."""
    from flopbench.runner.cluster import submit as submit_array

    jobs = submit_array(arguments or [], shards, logs, cluster=cluster, options=parse_options(set_ or []))
    for shard, job in enumerate(jobs, 1):
        echo(f"shard {shard}/{shards}: job {job.job_id}")
    echo("when all are done: flopbench merge results/*-shard*of* --out results/NAME")
