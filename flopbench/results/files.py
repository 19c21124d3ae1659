"""Files that are never seen half-written, and records in them."""

import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from flopbench.cells import Frozen
from flopbench.errors import FlopbenchError
from flopbench.results.records import SCHEMA

Record = TypeVar("Record", bound=Frozen)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name beside it and rename it, so that no reader sees half of it."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_record(path: Path, record: Frozen) -> None:
    """Write a record as JSON."""
    write_atomically(path, record.model_dump_json(by_alias=True, indent=1) + "\n")


def read_record(path: Path, kind: type[Record], fault: str = "is damaged") -> Record:
    """The record in a JSON file.

    Raises:
        FlopbenchError: there is no such file, or it holds another thing: `fault`; or it is of a newer schema.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = what_is_wrong(error, fault)
    except OSError as error:
        problem = f"{fault}: {error}"
    raise FlopbenchError(f"{path} {problem}")


def what_is_wrong(error: ValidationError, fault: str = "is damaged") -> str:
    """What a record is that cannot be read: of a newer schema, or else `fault`, with the first reason."""
    first = error.errors()[0]
    if first["loc"] == ("schema",) and isinstance(first["input"], int) and first["input"] > SCHEMA:
        newer = f"is of schema {first['input']}, from a newer flopbench"
        return f"{newer}: this one reads up to {SCHEMA}; upgrade it"
    where = ".".join(map(str, first["loc"]))
    return f"{fault}: {where + ': ' if where else ''}{first['msg']}"
