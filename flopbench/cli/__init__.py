"""The `flopbench` command: parse, call, print, nothing else.

Modules of this room import what is heavy (torch, pandas, matplotlib) inside the commands, so that
`flopbench --help` is instant.
"""

import sys
from typing import Annotated, Any, NoReturn

import typer

from flopbench import __version__
from flopbench.cli import (
    calibrate,
    compare,
    flops,
    gate,
    history,
    inspect,
    profile,
    report,
    run,
    submit,
    verify,
)
from flopbench.cli.subcommands import with_subcommands
from flopbench.errors import ExitCode, FlopbenchError

INTERRUPTED = 130

# The class of all complaints about the command line. typer does not export it, and brings its own click.
ClickException: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="flopbench",
    help="How much of the FLOPs that mirror symmetry saves becomes time.",
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
app.command("calibrate")(calibrate.calibrate)
app.command("merge")(calibrate.merge)
app.command("submit")(submit.submit)
app.command("compare")(compare.compare)
app.command("history")(history.history)
app.command("verify")(verify.verify)
app.command("list")(inspect.list_)
app.command("env")(inspect.env)
app.add_typer(with_subcommands(flops.flops, {"audit": flops.audit}), name="flops")
app.add_typer(
    with_subcommands(profile.profile, {"predict": profile.predict, "check": profile.check}), name="profile"
)
app.add_typer(with_subcommands(gate.gate, {"self-test": gate.self_test}), name="gate")


def main() -> None:
    """Entry point: what the user can mend becomes one line on stderr and the documented exit code."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        # Not standalone: click would turn Ctrl-C into exit code 1, which here means a regression.
        code = app(standalone_mode=False)
    except FlopbenchError as error:
        if "--debug" in sys.argv:
            raise
        _leave(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _leave("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe left early (`| head`): nothing is wrong.
        sys.stderr.close()
        sys.exit(ExitCode.OK)
    except ClickException as error:
        _leave(error.format_message(), ExitCode.USAGE)
    else:
        sys.exit(code)


def _leave(message: str, code: int) -> NoReturn:
    print(f"flopbench: {message}", file=sys.stderr)
    sys.exit(code)
