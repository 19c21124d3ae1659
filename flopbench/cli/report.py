"""`flopbench report`."""

from pathlib import Path
from typing import Annotated

import typer

from flopbench.cli.console import echo, make_console
from flopbench.errors import FlopbenchError


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are shown side by side.")],
    out: Annotated[Path, typer.Option(help="Where the report's folder goes.")] = Path("reports"),
    format_: Annotated[
        str, typer.Option("--format", help="What to print: table, json, csv or markdown.")
    ] = "table",
) -> None:
    """Render runs as Markdown, a self-contained page, tables and pictures."""

    from flopbench.report import FORMATS
    from flopbench.report.render import render_report
    from flopbench.report.tables import format_frame, summary_table
    from flopbench.results import Run, to_frame

    if format_ not in FORMATS:
        raise FlopbenchError(f"--format {format_!r}: choose one of {', '.join(FORMATS)}")
    opened = [Run.open(path) for path in runs]
    files = render_report(opened, out)
    frame = to_frame(opened)
    # What the user reads goes to stderr when stdout is for a pipe.
    console = make_console(stderr=format_ != "table")
    if format_ == "table":
        console.print(summary_table(frame))
    else:
        echo(format_frame(frame, format_))
    for path in (files.markdown, files.html):
        console.print(f"report: {path}", soft_wrap=True, markup=False)
    for answer in files.answers:
        console.print(answer.in_short, markup=False)
