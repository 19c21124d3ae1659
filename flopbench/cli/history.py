"""`flopbench history results/`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flopbench.cli.console import echo, make_console
from flopbench.errors import FlopbenchError


def history(
    folders: Annotated[list[Path], typer.Argument(help="Folders that hold runs.")],
    metric: Annotated[
        str, typer.Option(help="speedup, throughput, baseline_throughput, peak_memory or macs.")
    ] = "speedup",
    cell: Annotated[
        list[str] | None,
        typer.Option(help="Only cells that fit this pattern, e.g. 'vit_s16.flop/*'; repeatable."),
    ] = None,
    machine: Annotated[str | None, typer.Option(help="Only machines with this in their name.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only runs since a day or a commit: 2026-11-01, git:v1.0.")
    ] = None,
    min_change: Annotated[
        float, typer.Option(min=0, max=1, help="Smallest relative change that is marked.")
    ] = 0.01,
    out: Annotated[Path, typer.Option(help="Where the picture and the table go.")] = Path("reports/history"),
    output: Annotated[str, typer.Option("--format", help="table or markdown.")] = "table",
) -> None:
    """Show the figures of each cell over runs and commits, and where they changed."""

    from flopbench.regression.history import find_runs, parse_since, table, write
    from flopbench.regression.history import history as series_of

    if output not in ("table", "markdown"):
        raise FlopbenchError(f"--format {output!r}: choose table or markdown")
    tell = partial(make_console(stderr=True).print, soft_wrap=True, markup=False)
    series = series_of(
        find_runs(folders, tell),
        metric=metric,
        cells=cell or (),
        machine=machine,
        since=parse_since(since) if since is not None else None,
        min_change=min_change,
        say=tell,
    )
    if output == "markdown":
        echo(table(series).markdown())
    else:
        make_console().print(table(series))
    for path in write(series, out):
        tell(f"wrote {path}")
