"""What a command is: its stdout is its own, and it may have subcommands beside its own work."""

from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from flopbench.cli.console import stdout_kept


class Command(TyperCommand):
    """A command whose stdout is what it prints itself, whatever the networks print that it runs."""

    # typer brings a click of its own whose types it does not export.
    def invoke(self, ctx: Any) -> Any:
        """Call the command."""
        with stdout_kept():
            return super().invoke(ctx)


class _Group(TyperGroup):
    """What follows is the command's own, unless the first word names a subcommand."""

    allow_extra_args = False
    allow_interspersed_args = True

    def invoke(self, ctx: Any) -> Any:
        with stdout_kept():
            return super().invoke(ctx)

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
