"""What is not flopbench's own: objects that a name stands for, imported or given from Python.

`package.module:callable` is imported, `python:NAME` is what a caller gave under that name (`put`). Imports no
torch.
"""

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any

from flopbench.errors import FlopbenchError, in_one_line
from flopbench.models.catalog import GIVEN

_given: dict[str, Any] = {}


def put(objects: Mapping[str, Any]) -> None:
    """Let `python:NAME` stand for each of these objects, by name, in this process; others are forgotten."""
    _given.clear()
    _given.update(objects)


def load(path: str) -> Any:
    """What a name stands for. The current folder is importable, here and in workers.

    Raises:
        FlopbenchError: it cannot be imported, or nothing of that name was given.
    """
    module, _, attribute = path.partition(":")
    if module == GIVEN:
        if attribute not in _given:
            raise FlopbenchError(f"{path} was given from Python, and is gone: call flopbench.benchmark again")
        return _given[attribute]
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise FlopbenchError(f"cannot import {path}: {in_one_line(error)}") from error
        raise FlopbenchError(
            f"cannot import {path}: no module {error.name!r} in the current folder, in PYTHONPATH or "
            f"installed; run the command where {error.name.partition('.')[0]}.py lies"
        ) from None
    except (Exception, SystemExit) as error:
        raise FlopbenchError(f"cannot import {path}: {in_one_line(error)}") from error
    try:
        return attrgetter(attribute)(found)
    except AttributeError:
        raise FlopbenchError(f"module {module} has no {attribute!r}") from None


def load_network(path: str) -> Callable[..., Any]:
    """What builds the network of a name when it is called; given from Python, it is that network itself.

    Raises:
        FlopbenchError: see `load`; or it cannot be called.
    """
    found = load(path)
    if path.partition(":")[0] == GIVEN:
        return lambda: found
    if not callable(found):
        raise FlopbenchError(
            f"{path} is of type {type(found).__name__}: name a class or function that returns a network"
        )
    return found
