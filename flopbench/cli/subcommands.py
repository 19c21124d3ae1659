"""What a command is: its stdout is its own, and it may have subcommands beside its own work."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from flopbench.cli.console import stdout_kept
from flopbench.errors import FlopbenchError


class _Strict:
    """Refuses what no option takes, and keeps stdout for what the command prints itself."""

    # typer brings a click of its own whose types it does not export.
    def parse_args(self: Any, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line.

        Raises:
            FlopbenchError: a value is empty, which would pass for the default, or no finite number.
        """
        for before, word in pairwise(["", *args]):
            option, equals, value = word.partition("=")
            if not word.strip() or (word.startswith("--") and equals and not value.strip()):
                name = next((name for name in (option, before) if name.startswith("-")), "an argument")
                raise FlopbenchError(f"{name} is empty: leave it out, or give it a value")
        left = super().parse_args(ctx, args)  # pyright: ignore[reportAttributeAccessIssue]
        for param in self.params:
            value = ctx.params.get(param.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise FlopbenchError(f"{param.opts[0]} must be a finite number, got {value}")
        return left

    def invoke(self, ctx: Any) -> Any:
        """Call the command; whatever the networks print that it runs goes to stderr."""
        try:
            with stdout_kept():
                return super().invoke(ctx)  # pyright: ignore[reportAttributeAccessIssue]
        except SystemExit as error:
            raise RuntimeError(f"a network or its module called sys.exit({error.code!r})") from error


class Command(_Strict, TyperCommand):
    """A command of `flopbench`."""


class _Group(_Strict, TyperGroup):
    """What follows is the command's own, unless the first word names a subcommand."""

    allow_extra_args = False
    allow_interspersed_args = True

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        subcommand = self.commands.get(args[0]) if args else None
        if subcommand is None:
            return super().make_context(info_name, args, parent, **extra)
        return subcommand.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx)[:-1], *(f"| {name} ..." for name in self.commands)]


def with_subcommands(
    command: Callable[..., None], subcommands: Mapping[str, Callable[..., None]]
) -> typer.Typer:
    """`command` as it is, and under names of their own the subcommands."""
    group = typer.Typer(cls=_Group, callback=command, invoke_without_command=True)
    for name, subcommand in subcommands.items():
        group.command(name, cls=Command)(subcommand)
    return group
