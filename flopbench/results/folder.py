"""Folders on disk: a file that says what was executed on what, and one with a line per part that is done."""

import itertools
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

from flopbench.errors import FlopbenchError
from flopbench.frozen import Frozen
from flopbench.results.files import read_record, write_record
from flopbench.results.lines import append_line, locked, read_lines, set_torn_line_aside


class RunExistsError(FlopbenchError):
    """There is a folder where a new run was to be."""


Made = TypeVar("Made")
Info = TypeVar("Info", bound=Frozen)
Line = TypeVar("Line", bound=Frozen)


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make the folder of a new run, whose first files are written within; where that fails, none is left.

    Raises:
        RunExistsError: there is one.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise FlopbenchError(f"{path} is a file: name a folder that is not there yet") from None
        raise RunExistsError(f"run folder {path} exists already; use --resume {path}") from None
    try:
        yield
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def make_under(results: Path | None, name: str, create: Callable[[Path], Made]) -> Made:
    """A new run folder under `results`, called `name`, or `name-2` and so on where that is taken.

    Args:
        results: None: a temporary folder, which lasts as long as what `create` returns.
        name: of the new folder.
        create: makes it; raises RunExistsError where there is one.
    """
    if results is None:
        temporary = Path(tempfile.mkdtemp(prefix="flopbench-"))
        folder = create(temporary / name)
        weakref.finalize(folder, shutil.rmtree, temporary, ignore_errors=True)
        return folder
    # A number for those that are begun within one second.
    for path in itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2))):
        with suppress(RunExistsError):
            return create(results / path)
    raise AssertionError("unreachable")


def name_of(created: datetime, *parts: str) -> str:
    """What a new folder is called: what is in it and when it was begun, in characters that any disk takes."""
    words = (re.sub(r"[^\w.]+", "-", part).strip("-.") for part in parts)
    return "-".join([*words, f"{created:%Y%m%d-%H%M%S}"])


class RecordsFolder(Generic[Info, Line]):
    """The folder of one execution. Reading never changes it; `append` adds a record and flushes it to disk.

    Attributes:
        path: of the folder.
        info: what its one file says.
    """

    # What it is of, and what another process may be doing with it: "run", "measured".
    what: ClassVar[str]
    done: ClassVar[str]
    info_file: ClassVar[str]
    lines_file: ClassVar[str]
    info_kind: type[Info]
    line_kind: type[Line]

    def __init__(self, path: Path, info: Info) -> None:
        self.path = path
        self.info = info

    @classmethod
    def create(cls, path: Path, info: Info) -> Self:
        """Make a new folder.

        Raises:
            RunExistsError: it exists already.
        """
        with made_folder(path):
            (path / cls.lines_file).touch()
            write_record(path / cls.info_file, info)
        return cls(path, info)

    @classmethod
    def create_under(cls, results: Path | None, name: str, info: Info) -> Self:
        """Make a new folder as `make_under` does; its `id` is what it is called in the end."""
        return make_under(
            results, name, lambda path: cls.create(path, info.model_copy(update={"id": path.name}))
        )

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing folder.

        Raises:
            FlopbenchError: it is of another thing, or of a schema that this version does not read.
        """
        return cls(path, read_record(cls._found(path, cls.info_file), cls.info_kind))

    @classmethod
    def _found(cls, path: Path, name: str) -> Path:
        if not (path / name).is_file():
            raise FlopbenchError(f"{path} is not a {cls.what}: it has no {name}")
        return path / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within it, no other process writes here. The lock ends with its process, however that ends.

        Raises:
            FlopbenchError: another process does.
        """
        with locked(self.path / self.info_file, f"{self.path} is being {self.done} by another flopbench"):
            yield

    def append(self, record: Line) -> None:
        """Add a record; it is on disk when this returns."""
        append_line(self.path / self.lines_file, record)

    def lines(self) -> Iterator[Line]:
        """Every record in the order of writing, with those that a later one stands in for.

        A damaged line is passed over with a warning: it costs its own record, and no other.

        Raises:
            FlopbenchError: the file cannot be read, or a line is of a newer schema.
        """
        yield from read_lines(self._found(self.path, self.lines_file), self.line_kind)

    def set_torn_lines_aside(self) -> None:
        """Move an unfinished last line to a file `.torn` beside its own; whole ones stay."""
        set_torn_line_aside(self.path / self.lines_file, self.line_kind)
