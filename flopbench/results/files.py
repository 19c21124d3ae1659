"""Files that are never seen half-written, and records in them."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from flopbench.errors import FlopbenchError
from flopbench.frozen import Frozen, place
from flopbench.results.records import SCHEMA

Record = TypeVar("Record", bound=Frozen)

# Characters that a terminal obeys, that some readers take for the end of a line, or that UTF-8 cannot hold.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file under a temporary name beside it and rename it, so that no reader sees half of it.

    Raises:
        OSError: it cannot be written, e.g. as the disk is full; what was there before is there still.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            # Else the new name may reach the disk before the content does, and a power cut leaves neither.
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def as_json(record: Frozen, indent: int | None = None) -> str:
    """A record as it is written, on one line unless `indent` says otherwise.

    What a network or the system said may hold anything: control characters and surrogates become U+FFFD,
    and of paths on this machine only what says nothing about it is left.
    """
    content = _printable(record.model_dump(mode="json", by_alias=True))
    separators = (",", ":" if indent is None else ": ")
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)


def _printable(value: Any) -> Any:
    match value:
        case str():
            return _UNPRINTABLE.sub("\ufffd", without_paths(value))
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {_printable(key): _printable(item) for key, item in value.items()}
    return value


# Absolute, with a folder at least; not the middle of an address, a relative path, a ratio or a pattern.
_ABSOLUTE = re.compile(r"""(?<![\w~.:/×*?\])-])/(?:[^\s/'":,;()<>]+/)+""")


def without_paths(text: str) -> str:
    """Text whose paths say nothing about this machine.

    Those below the current folder are relative to it and those at home begin with `~`; of any other the
    name alone is left.
    """
    if os.sep not in text:
        return text
    # Their names may hold spaces, at which the pattern ends.
    for folder, short in ((Path.cwd(), ""), (Path("~").expanduser(), f"~{os.sep}")):
        if folder.parent != folder:
            text = text.replace(f"{folder}{os.sep}", short)
    return _ABSOLUTE.sub("", text)


def write_record(path: Path, record: Frozen) -> None:
    """Write a record as JSON."""
    write_atomically(path, as_json(record, indent=1) + "\n")


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
        problem = f"{fault}: {error.strerror}"
    raise FlopbenchError(f"{path} {problem}")


def is_newer(error: ValidationError) -> bool:
    """Whether a record cannot be read because a newer flopbench wrote it."""
    first = error.errors()[0]
    return first["loc"] == ("schema",) and isinstance(first["input"], int) and first["input"] > SCHEMA


def what_is_wrong(error: ValidationError, fault: str = "is damaged") -> str:
    """What a record is that cannot be read: of a newer schema, or else `fault`, with the first reason."""
    first = error.errors()[0]
    if is_newer(error):
        newer = f"is of schema {first['input']}, from a newer flopbench"
        return f"{newer}: this one reads up to {SCHEMA}; upgrade it"
    where = place(first["loc"])
    return f"{fault}: {where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
