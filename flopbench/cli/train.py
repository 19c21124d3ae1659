"""`flopbench train`."""

import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from flopbench.cli.console import echo, make_console
from flopbench.errors import ExitCode, FlopbenchError


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe (see `flopbench list recipes`) or a TOML file.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The network, e.g. vit_s16.flop.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder with train/ and val/, hfds/…, wds/…, tfds/…, torch/…, or digits and the like."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to make; by default one under --results, called after all this."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the training of this folder.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is random; 0 by default.", min=0)] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step, over all processes.", min=1)
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Over the training set.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts that each process computes its share of a batch in.", min=1)
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations instead of keeping them.")
    ] = False,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Spread the weights over the processes (FSDP2).")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read images; by default what suits.", min=0)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value in the recipe: optimiser.learning_rate=1e-3; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained by what, and train nothing.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Where the training's folder goes.")] = Path("results"),
    reports: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("reports"),
) -> None:
    """Train a network by a recipe; it goes on after any end by --resume."""

    from flopbench.recipes import merged

    changes = changes_of(set_ or ())
    shortcuts = {"batch_size": batch_size, "epochs": epochs}
    changes = merged(changes, {key: value for key, value in shortcuts.items() if value is not None})
    if dry_run:
        _plan(recipe, model, changes)
        return

    from flopbench.ranks import speaks, tells
    from flopbench.runner.begin import recorded_command
    from flopbench.training.train import Stopped, train
    from flopbench.training.watch import watch_for

    console = make_console(stderr=True)
    try:
        with watch_for(console) as watch:
            training = train(
                recipe,
                model,
                data,
                out=out,
                results=results,
                resume=resume,
                seed=seed,
                device=device,
                accumulation=accumulate,
                checkpointing=checkpointing,
                sharded=sharded or None,
                workers=workers,
                watch=watch,
                command=recorded_command(sys.argv[1:]),
                **changes,
            )
    except Stopped as stopped:
        if tells(stopped):
            console.print(str(stopped), soft_wrap=True, markup=False)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if not speaks():
        return
    files = training.report(reports)
    out_console = make_console()
    out_console.print(training)
    out_console.print(f"training: {training.path}", soft_wrap=True, markup=False)
    out_console.print(f"report:   {files.markdown}", soft_wrap=True, markup=False)


def changes_of(settings: Iterable[str]) -> dict[str, Any]:
    """The tables of `optimiser.learning_rate=1e-3`, `ema=0.99`; values are TOML's, or else words.

    Raises:
        FlopbenchError: not of that form.
    """
    from flopbench.recipes import merged

    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise FlopbenchError(f"--set {setting!r} is not of the form optimiser.learning_rate=1e-3")
        try:
            one = tomllib.loads(f"{key} = {value}")
        except tomllib.TOMLDecodeError:
            try:
                one = tomllib.loads(f"{key} = '{value}'")
            except tomllib.TOMLDecodeError:
                raise FlopbenchError(
                    f"--set {setting!r} is not of the form optimiser.learning_rate=1e-3"
                ) from None
        changes = merged(changes, one)
    return changes


def _plan(recipe: str | None, model: str | None, changes: dict[str, Any]) -> None:
    """Print the recipe as it would be followed, and what the network would be called with."""
    from flopbench.models.catalog import parse_name
    from flopbench.recipes import load_recipe
    from flopbench.training.train import check_network

    if recipe is None:
        raise FlopbenchError("--dry-run takes a recipe; a training that was begun has its own")
    found = load_recipe(recipe, changes)
    if model is not None:
        check_network(found, model)
    echo(found.model_dump_json(indent=1, exclude={"options", "expected"}))
    if model is not None:
        echo(f"{parse_name(model).label()}: {found.options_of(model) or 'as it is'}")
