"""`flopbench report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flopbench.cli.console import echo, make_console
from flopbench.errors import FlopbenchError
from flopbench.report import FORMATS

if TYPE_CHECKING:
    from flopbench.report.reported import Reported


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Of runs, races, evaluations or trainings; several of one kind are shown side by side."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the report's folder goes.")] = Path("reports"),
    format_: Annotated[
        str, typer.Option("--format", help="What to print: table, json, csv or markdown.")
    ] = "table",
) -> None:
    """Render what was measured as Markdown, a self-contained page, tables and pictures."""

    from flopbench.report.opening import opened

    check_format(format_)
    result = opened(*folders)
    files = result.report(out)
    # What the user reads goes to stderr when stdout is for a pipe.
    console = make_console(stderr=format_ != "table")
    print_tables(result, format_, console)
    for path in (files.markdown, files.html):
        console.print(f"report: {path}", soft_wrap=True, markup=False)
    for answer in files.answers:
        console.print(answer.in_short, markup=False)


def check_format(format_: str) -> None:
    """Raise for a `--format` that there is not.

    Raises:
        FlopbenchError: with those that there are.
    """
    if format_ not in FORMATS:
        raise FlopbenchError(f"--format {format_!r}: choose one of {', '.join(FORMATS)}")


def print_tables(result: "Reported", format_: str, console: Any) -> None:
    """Print a result's tables for people, or its figures for a pipe."""
    if format_ == "table":
        console.print(*result.tables())
    else:
        echo(result.formatted(format_))
