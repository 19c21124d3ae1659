"""Options for what a cell varies in: one per axis, made from its declaration."""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flopbench.cells import AXES, Axis

if TYPE_CHECKING:
    from flopbench.cells import Cell
    from flopbench.modes import DeviceKind

Values = dict[str, tuple[Any, ...]]
"""The values that were asked for, by the plural of their axis, as in a profile."""


def with_axes(
    *, several: bool, only: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with an option for each axis in place of its parameter `axes`, which gets the `Values`.

    Args:
        several: each option may be repeated.
        only: the fields of the axes that it has; none for all.
    """
    chosen = [axis for axis in AXES.values() if axis.field in only or not only]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_values(*arguments: Any, **options: Any) -> None:
            axes = {}
            for axis in chosen:
                given = options.pop(axis.field, None) or ()
                if values := tuple(map(axis.parse, (given,) if isinstance(given, str) else given)):
                    axes[axis.plural] = values
            command(*arguments, **options, axes=axes)

        own = inspect.signature(command).parameters.values()
        parameters = [parameter for parameter in own if parameter.name != "axes"]
        parameters += [_option(axis, several) for axis in chosen]
        # typer asks for both.
        with_values.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
        with_values.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_values

    return decorate


def _option(axis: Axis, several: bool) -> inspect.Parameter:
    option = typer.Option(axis.option, help=f"{axis.help}; repeatable." if several else f"{axis.help}.")
    return inspect.Parameter(
        axis.field,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None,
        annotation=Annotated[list[str] | None if several else str | None, option],
    )


def one_each(axes: Values) -> dict[str, Any]:
    """The values that were asked for, one of each axis, by its field."""
    return {axis.field: axes[axis.plural][0] for axis in AXES.values() if axis.plural in axes}


def cells_of(pair: str, device: "DeviceKind", axes: Mapping[str, tuple[Any, ...]]) -> "list[Cell]":
    """The cells of one pair that the options name; one of each axis that they do not.

    Raises:
        FlopbenchError: a value does not suit the pair, or exists on CUDA only.
    """
    from flopbench.axis_values import ONE_CELL
    from flopbench.runner.sweep import check_cells
    from flopbench.suites import Profile, override

    alone = Profile.model_validate(ONE_CELL[device])
    cells = list(override(alone, pairs=(pair,), **axes).cells(device))
    check_cells(cells)
    return cells
