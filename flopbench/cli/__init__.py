"""The `flopbench` command: parse, call, print, nothing else.

Modules of this room import what is heavy (torch, pandas, matplotlib) inside the commands, so that
`flopbench --help` is instant.
"""

import os
import sys
import traceback
import warnings
from typing import Annotated, Any, NoReturn

import typer

from flopbench import __version__
from flopbench.cli import (
    calibrate,
    compare,
    evaluate,
    export,
    flops,
    gate,
    history,
    inspect,
    profile,
    race,
    report,
    run,
    submit,
    train,
    verify,
)
from flopbench.cli.stops import stops_heeded
from flopbench.cli.subcommands import Command, with_subcommands
from flopbench.errors import ExitCode, FlopbenchError
from flopbench.ranks import tell_torchrun, tells
from flopbench.report.text import printable

DEBUG = "--debug"
_HOW = f"the stack is shown with {DEBUG}"

# Characters of an unexpected error's first line that are shown.
_LINE = 300

# The class of all complaints about the command line. typer does not export it, and brings its own click.
ClickException: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="flopbench",
    help="How much of the FLOPs that symmetry saves becomes time.",
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
    # Taken out by `main`, which lets it stand anywhere; declared here for the help.
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show the stack of an error; stands before or after a command.")
    ] = False,
) -> None:
    pass


for _name, _command in {
    "run": run.run,
    "train": train.train,
    "race": race.race,
    "report": report.report,
    "calibrate": calibrate.calibrate,
    "merge": calibrate.merge,
    "submit": submit.submit,
    "compare": compare.compare,
    "history": history.history,
    "verify": verify.verify,
    "evaluate": evaluate.evaluate,
    "export": export.export,
    "list": inspect.list_,
    "env": inspect.env,
}.items():
    app.command(_name, cls=Command)(_command)
app.add_typer(with_subcommands(flops.flops, {"audit": flops.audit}), name="flops")
app.add_typer(
    with_subcommands(profile.profile, {"predict": profile.predict, "check": profile.check}), name="profile"
)
app.add_typer(with_subcommands(gate.gate, {"self-test": gate.self_test}), name="gate")


def main() -> NoReturn:
    """Entry point: whatever goes wrong becomes one line on stderr and a documented exit code."""
    _open_closed_streams()
    words = sys.argv[1:] or ["--help"]
    own = words[: words.index("--")] if "--" in words else words
    debug = DEBUG in own
    words = [word for word in own if word != DEBUG] + words[len(own) :]
    with warnings.catch_warnings(), stops_heeded():
        if not debug:
            warnings.showwarning = _show_warning
        try:
            # Not standalone: click would turn Ctrl-C into exit code 1, which here means a regression.
            code = app(words, prog_name="flopbench", standalone_mode=False)
            sys.stdout.flush()
            # typer makes of Ctrl-C an exit code, without a word.
            if code == ExitCode.INTERRUPTED and tells(KeyboardInterrupt()):
                _say("interrupted")
        except BaseException as error:
            if debug and not isinstance(error, SystemExit):
                traceback.print_exception(error)
            message, code = _last_words(error)
            if message:
                tell_torchrun(message)
            if message and tells(error):
                _say(message)
            _drop_output()
    sys.exit(code)


def _last_words(error: BaseException) -> tuple[str, ExitCode]:
    """The line that says how the command ended, and its exit code: by accident none is a regression."""
    match error:
        case FlopbenchError():
            return str(error), error.exit_code
        case typer.Abort() | KeyboardInterrupt():
            return "interrupted", ExitCode.INTERRUPTED
        case ClickException():
            return error.format_message(), ExitCode.USAGE
        # click makes the one of the other.
        case BrokenPipeError() | SystemExit(__context__=BrokenPipeError()):
            return "broken pipe: what reads the output stopped reading", ExitCode.PIPE_CLOSED
        case OSError():
            where = f": {error.filename}" if error.filename else ""
            return f"{error.strerror or error}{where} ({_HOW})", ExitCode.USAGE
        case SystemExit():
            # Shell completion ends so, and has said what it could not do; no network can (`Command`).
            return "", ExitCode.USAGE if error.code else ExitCode.OK
        case _:
            first = next(iter(str(error).strip().splitlines()), "")[:_LINE]
            what = f"{type(error).__name__}: {first}" if first else type(error).__name__
            return f"unexpected {what} ({_HOW})", ExitCode.INTERNAL


def _open_closed_streams() -> None:
    """Let standard streams that are closed (`>&-`) lead nowhere, each under the descriptor that it lacks."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Open until the process ends.
            stream = open(os.devnull, "w" if number else "r")  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _drop_output() -> None:
    """Give up what stdout cannot take (a full disk, a closed pipe): Python would complain at its own end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    _say(f"warning: {message}")


def _say(line: str) -> None:
    print(f"flopbench: {printable(line)}", file=sys.stderr)
