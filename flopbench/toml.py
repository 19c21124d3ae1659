"""TOML files of users: read, and what is wrong in one line. Imports no torch."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flopbench.errors import FlopbenchError, unknown
from flopbench.frozen import Frozen, complaint, place

Model = TypeVar("Model", bound=Frozen)


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        FlopbenchError: it cannot be read, or is no TOML.
    """
    try:
        # Some editors begin a file with a byte order mark, which is no part of the TOML.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FlopbenchError(f"{path.name} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise FlopbenchError(f"{path.name} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # not TOML, no UTF-8, or a number of thousands of digits
        raise FlopbenchError(f"{path.name} is not valid TOML: {error}") from None


def parse(kind: type[Model], raw: dict[str, Any], where: str) -> Model:
    """A record from the contents of its file.

    Raises:
        FlopbenchError: a mistake, with the place and the remedy.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise FlopbenchError(f"{where}: {_first_mistake(error, kind)}") from None


def _first_mistake(error: ValidationError, kind: type[BaseModel]) -> str:
    errors = error.errors()
    # A key that is missing may be the one that was misspelt.
    first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    *outer, last = first["loc"] or ("",)
    if first["type"] == "extra_forbidden":
        where = place(outer)
        return f"{where + ': ' if where else ''}{unknown('key', str(last), _fields(kind, outer))}"
    where = "" if last == "" else place((*outer, last))
    if first["type"] == "missing":
        return f"{where} is missing"
    return f"{where + ': ' if where else ''}{complaint(error)}"


def _fields(kind: type[BaseModel], location: list[int | str]) -> list[str]:
    """The names that the table at a location may have."""
    for key in location:
        field = kind.model_fields.get(str(key))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return list(kind.model_fields)
