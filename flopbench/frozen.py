"""Records that cannot change once made, and what is said of one that is wrong. Imports no torch."""

import re
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, ValidationError

from flopbench.errors import brief


class Frozen(BaseModel):
    """A record that cannot change once made, and that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def complaint(error: ValidationError) -> str:
    """The first of pydantic's complaints: what is wrong, and what was given."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    message = re.sub(r"valid dictionary( or instance of \w+)?$", "table", message)
    given = "" if isinstance(first["input"], dict) else brief(first["input"])
    given = f", got {given}" if given not in message else ""
    return message[0].lower() + message[1:] + given


def place(location: Iterable[int | str]) -> str:
    """Where in a file a mistake is, of pydantic's location: `profiles.cpu.batch_sizes[0]`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{_named(part)}" for part in location)
    return "".join(parts).lstrip(".")


def _named(key: str) -> str:
    return key if re.fullmatch(r"[\w-]{1,60}", key) else brief(key)
