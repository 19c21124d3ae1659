"""`flopbench list` and `flopbench env`."""

import json
from typing import Annotated

import typer

from flopbench.cli.console import echo, make_console
from flopbench.errors import FlopbenchError


def list_(
    what: Annotated[str, typer.Argument(help="suites, recipes, models, or all of it.")] = "all",
    macs: Annotated[
        bool, typer.Option("--macs", help="Count the MACs of each model, too, which takes longer.")
    ] = False,
) -> None:
    """List the suites, the recipes of training, and the models with their parameters."""

    from flopbench.report.listing import models_table, races_table, recipes_table, suites_table

    if what not in ("suites", "recipes", "models", "all"):
        raise FlopbenchError(f"cannot list {what!r}: choose suites, recipes, models or all")
    console = make_console()
    if what in ("suites", "all"):
        console.print(suites_table())
        console.print(races_table())
    if what in ("recipes", "all"):
        console.print(recipes_table())
    if what in ("models", "all"):
        console.print(models_table(macs=macs))


def env() -> None:
    """Print what a run taken here would say about the machine, as JSON."""
    from flopbench.runner.sweep import probe_environment

    echo(json.dumps(probe_environment(None).model_dump(), indent=1))
