import re
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from flopbench.cli.subcommands import with_subcommands


def brew(leaf: Annotated[str, typer.Argument()], minutes: Annotated[int, typer.Option()] = 3) -> None:
    """Make tea."""
    typer.echo(f"{leaf}, {minutes} minutes")


def rinse(hot: Annotated[bool, typer.Option("--hot")] = False) -> None:
    """Warm the pot."""
    typer.echo(f"rinsed {'hot' if hot else 'cold'}")


def anywhere() -> None:
    """Beside it."""


app = typer.Typer(rich_markup_mode=None)
app.command("stir")(anywhere)
app.add_typer(with_subcommands(brew, {"rinse": rinse}), name="tea")


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("assam", "assam, 3 minutes"),
        ("assam --minutes 5", "assam, 5 minutes"),
        ("--minutes 5 assam", "assam, 5 minutes"),
        ("rinse", "rinsed cold"),
        ("rinse --hot", "rinsed hot"),
        # Not the first word: the command's own.
        ("--minutes 5 rinse", "rinse, 5 minutes"),
        ("-- rinse", "rinse, 3 minutes"),
    ],
)
def test_a_first_word_that_is_no_subcommand_is_the_commands_own(words: str, printed: str):
    done = CliRunner().invoke(app, ["tea", *words.split()])
    assert (done.output.strip(), done.exit_code) == (printed, 0)


@pytest.mark.parametrize("words", ["", "assam ceylon", "assam --hot", "rinse assam", "rinse --minutes 5"])
def test_each_takes_only_what_is_its_own(words: str):
    assert CliRunner().invoke(app, ["tea", *words.split()]).exit_code == 2


@pytest.mark.parametrize("words", ["--help", "assam --help"])
def test_help_shows_the_commands_own_options_and_the_subcommands(words: str):
    text = CliRunner().invoke(app, ["tea", *words.split()]).output
    assert re.search(r"tea \[OPTIONS\] \{?leaf\}? \| rinse \.\.\.", text, re.IGNORECASE)
    assert "Make tea." in text
    assert "--minutes" in text
    assert "rinse  Warm the pot." in text
    assert "--hot" not in text


def test_help_of_a_subcommand_names_it_in_full():
    text = CliRunner().invoke(app, ["tea", "rinse", "--help"]).output
    assert "tea rinse [OPTIONS]" in text
    assert "--minutes" not in text
