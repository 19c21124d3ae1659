"""The `flopbench` command: parse, call, print, nothing else.

Modules of this room import what is heavy (torch, pandas, matplotlib) inside the commands, so that
`flopbench --help` is instant.
"""

import sys
from typing import Annotated

import typer

from flopbench import __version__
from flopbench.cli import inspect, report, run
from flopbench.errors import ExitCode, FlopbenchError

app = typer.Typer(
    name="flopbench",
    help="How much of the FLOPs that mirror symmetry saves becomes time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"flopbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")] = False,
) -> None:
    pass


app.command("run")(run.run)
app.command("report")(report.report)
app.command("list")(inspect.list_)
app.command("env")(inspect.env)


def main() -> None:
    """Entry point: errors that the user can mend become one line on stderr and an exit code."""
    try:
        app()
    except FlopbenchError as error:
        if "--debug" in sys.argv:
            raise
        print(f"flopbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("flopbench: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe left early (`| head`): nothing is wrong.
        sys.stderr.close()
        sys.exit(ExitCode.OK)
