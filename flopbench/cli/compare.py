"""`flopbench compare BASE NEW`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flopbench.cli.console import echo


def compare(
    base: Annotated[Path, typer.Argument(help="Run folder, or JSON file of pytest-benchmark, before.")],
    new: Annotated[Path, typer.Argument(help="The same, after.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="Only this figure: speedup, throughput, peak_memory, macs; repeatable."
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Suite whose minimum effects apply; by default that of the new run.")
    ] = None,
    output: Annotated[
        Literal["table", "markdown", "json"], typer.Option("--format", help="How to print.")
    ] = "table",
    out: Annotated[
        Path | None, typer.Option(help="Also write comparison.json and comparison.md here.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML to this file.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Ambiguous is a failure: exit code 4.")] = False,
) -> None:
    """Compare two runs cell by cell: pass, fail, ambiguous or missing.

    Exit codes: 0 pass, 1 regression, 3 nothing to compare, or what BASE has is missing in NEW, 4 ambiguous
    (with --strict).
    """
    from flopbench import api
    from flopbench.regression.output import dumps, markdown, write_files

    comparison = api.compare_runs(base, new, suite=suite, metrics=metric or ())
    write_files(comparison, out=out, junit_file=junit, title="flopbench compare")
    if output == "json":
        echo(dumps(comparison), end="")
    elif output == "markdown":
        echo(markdown(comparison, title="flopbench compare"), end="")
    else:
        from flopbench.cli.gate import show

        show(comparison)
    raise typer.Exit(comparison.exit_code(strict=strict))
