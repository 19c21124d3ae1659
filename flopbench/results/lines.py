"""Files of records, one a line: append-only, and never the worse for a line that was cut short.

A line is written and flushed as soon as what it is about is done, and nothing ever rewrites it.
"""

import errno
import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from flopbench.errors import FlopbenchError
from flopbench.frozen import Frozen
from flopbench.results.files import Record, as_json, is_newer, what_is_wrong, write_atomically


def append_line(path: Path, record: Frozen) -> None:
    """Add a record; it is on disk when this returns.

    Raises:
        OSError: it cannot be written, on a full disk for example; the file is as it was.
    """
    # Unbuffered: what a full disk did not take would be written once more when the file is closed.
    with path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            # A last line that was cut short must not swallow this one.
            file.seek(-1, os.SEEK_END)
        glued = file.read(1) not in (b"", b"\n")
        line = b"\n" * glued + as_json(record).encode() + b"\n"
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def read_lines(path: Path, kind: type[Record]) -> Iterator[Record]:
    """The records in the order of writing.

    A damaged line is passed over with a warning: it costs its own record, and no other.

    Raises:
        FlopbenchError: the file cannot be read, or a line is of a newer schema.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FlopbenchError(f"{path} cannot be read: {error.strerror}") from None
    # Bytes, for str.splitlines() also splits within a string that holds U+2028.
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            problem = f"{path}, line {number} {what_is_wrong(error)}"
            if is_newer(error):
                raise FlopbenchError(problem) from None
            warnings.warn(f"{problem}; passed over", stacklevel=2)


def set_torn_line_aside(path: Path, kind: type[Frozen]) -> None:
    """Move an unfinished last line to a file `.torn` beside it; whole ones stay."""
    whole, newline, torn = (path.read_bytes() if path.is_file() else b"").rpartition(b"\n")
    if not torn or _is_whole(torn, kind):
        return
    aside = path.with_suffix(".torn")
    warnings.warn(f"{path}: the last line was torn and is set aside in {aside.name}", stacklevel=2)
    with aside.open("ab") as file:
        file.write(torn + b"\n")
    write_atomically(path, whole + newline)


@contextmanager
def locked(file: Path, message: str) -> Iterator[None]:
    """Within it, no other process has this file locked. The lock ends with its process, however that ends.

    Raises:
        FlopbenchError: another process has: `message`.
    """
    # Not for reading alone: a network's file system asks for more to lock a file.
    with file.open("r+b") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FlopbenchError(message) from None
        except OSError:
            # A file system without locks, where nobody can tell.
            pass
        yield


def _is_whole(line: bytes, kind: type[Frozen]) -> bool:
    try:
        kind.model_validate_json(line)
    except ValidationError as error:
        return is_newer(error)
    return True
