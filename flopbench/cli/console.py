"""Where commands print to: stdout is theirs alone, and nothing that they print steers a terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from flopbench.report.text import visible

# Wide enough for every column of the widest table.
FILE_WIDTH = 200

# The stream that `stdout_kept` holds for commands, innermost last.
_kept: list[TextIO] = []


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Within, stdout is only what commands print here; what anything else writes there goes to stderr.

    Networks print, and so do the libraries that they bring, in C too: a pipe is to get JSON all the same.
    """
    with _descriptor_kept() as stream, redirect_stdout(sys.stderr):
        _kept.append(stream)
        try:
            yield
        finally:
            _kept.pop()
            stream.flush()


@contextmanager
def _descriptor_kept() -> Iterator[TextIO]:
    """The stdout of this process as a stream, while its descriptor leads to stderr."""
    stdout = sys.__stdout__
    if stdout is None or _stdout() is not stdout:
        # Somebody captures what this process prints, and no descriptor is at stake.
        yield _stdout()
        return
    stdout.flush()
    descriptor = stdout.fileno()
    own = os.dup(descriptor)
    os.dup2(sys.__stderr__.fileno() if sys.__stderr__ else own, descriptor)
    try:
        with open(own, "w", encoding=stdout.encoding, errors="replace", closefd=False) as stream:
            yield stream
    finally:
        os.dup2(own, descriptor)
        os.close(own)


def _stdout() -> TextIO:
    return _kept[-1] if _kept else sys.stdout


def echo(text: str, *, end: str = "\n") -> None:
    """Print text of any number of lines to stdout."""
    _stdout().write(visible(text) + end)


def make_console(*, stderr: bool = False, **options: Any) -> Any:
    """A rich console. A file or pipe has no width: it gets one that leaves tables whole, or COLUMNS."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Harmless(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=visible(segment.text))

    stream = sys.stderr if stderr else _stdout()
    # Of no columns at all (`COLUMNS=0`) rich would print nothing.
    width = None if stream.isatty() or os.environ.get("COLUMNS", "").strip("0") else FILE_WIDTH
    return Harmless(file=stream, width=width, highlight=False, **options)
