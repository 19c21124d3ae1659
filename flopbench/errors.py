"""Errors that a user can mend: one line that says what is wrong, where, and what would be right."""

import difflib
import re
import reprlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from pathlib import PurePath
from types import CodeType
from typing import Any


class ExitCode(IntEnum):
    """The exit codes of every `flopbench` command.

    REGRESSION says that something became slower or larger, and nothing else leaves with it. INTERNAL is a
    fault of flopbench's own, or of a network that it ran. INTERRUPTED (Ctrl-C, SIGTERM or SIGHUP) and
    PIPE_CLOSED are what a shell says of SIGINT and SIGPIPE.
    """

    OK = 0
    REGRESSION = 1
    USAGE = 2
    NOTHING_MEASURED = 3
    AMBIGUOUS = 4
    INTERNAL = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class FlopbenchError(Exception):
    """A mistake in what flopbench was given; the message is shown as it is, without a stack trace."""

    exit_code = ExitCode.USAGE


class NothingMeasuredError(FlopbenchError):
    """The input was right, yet no cell could be measured."""

    exit_code = ExitCode.NOTHING_MEASURED


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a run was measured or a race ran; `result` holds what was done by then.

    Of a run it is a `flopbench.Result` with cells, of a race a `RaceResult` with trainings.
    """

    def __init__(self, result: Any, where: str, what: str = "cell") -> None:
        super().__init__(f"interrupted; every finished {what} is in {where}")
        self.result = result


# That a line can name.
_FEW = 100


def unknown(kind: str, given: str, known: Iterable[str]) -> FlopbenchError:
    """The error for a name that does not exist, with the nearest names that do."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif len(names) <= _FEW:
        hint = f"known: {', '.join(names)}"
    else:
        hint = f"none of the {len(names)} known has a name like it"
    return FlopbenchError(f"unknown {kind} {given!r}; {hint}")


# What runs a network, but is no part of it. `sys.stdlib_module_names` has the rest.
_MACHINERY = frozenset(
    {
        "flopbench",
        "fvcore",
        "torch",
        "cloudpickle",
        "click",
        "typer",
        "typing_extensions",
        *sys.stdlib_module_names,
    }
)
# Lines of stack: where it went wrong, and who called that.
_FRAMES = 2


def own_lines(error: BaseException) -> str:
    """Where an error arose in the user's own network: `nets.py:12 in forward`, the innermost line first.

    Lines of torch, flopbench and Python's own library are left out, and so are folders: a record names
    no path of the machine.

    Returns:
        At most two lines, the second after "called from"; "" if none of the stack is the user's.
    """
    frames = [
        _place(frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _MACHINERY
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append(f"{PurePath(error.filename).name}:{error.lineno}")
    return ", called from ".join(frames[: -_FRAMES - 1 : -1])


def _place(code: CodeType, line: int) -> str:
    # Code without a file: typed in, or sent to another process by cloudpickle.
    if code.co_filename.startswith("<"):
        return f"line {line} in {code.co_qualname}"
    return f"{PurePath(code.co_filename).name}:{line} in {code.co_name}"


_TRACED = re.compile(r'^\s*File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_PACKAGE = PurePath(__file__).parent


def traced_line(error: BaseException) -> str:
    """Where torch's compiler was in what it traced: `flopbench/models/vit.py:12 in forward`.

    The innermost line. It is on no stack, for the compiler does not run what it traces, but in the error's
    message. Of files outside of flopbench folders are left out.

    Returns:
        "" if the message says none.
    """
    found = _TRACED.findall(str(error).partition("from user code:")[2])
    if not found:
        return ""
    file, line, function = found[-1]
    path = PurePath(file)
    inside = path.is_relative_to(_PACKAGE)
    return f"{path.relative_to(_PACKAGE.parent).as_posix() if inside else path.name}:{line} in {function}"


def in_one_line(error: BaseException) -> str:
    """An error as one line: of flopbench's own its message, of somebody else's code its type, the first line
    of its message, `traced_line`, `own_lines`, and its notes, such as which network it was.
    """
    if isinstance(error, FlopbenchError):
        return str(error)
    first = gist(error.msg if isinstance(error, SyntaxError) else str(error)).removesuffix(":")
    notes = map(gist, getattr(error, "__notes__", ()))
    where = "; ".join(filter(None, [traced_line(error), own_lines(error), *notes]))
    return f"{type(error).__name__}{f': {first}' if first else ''}{f' ({where})' if where else ''}"


def gist(message: str) -> str:
    """The first line of a message; of one of torch's compiler also what it explains, whom it means, or what a
    backend raised.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(" raised:"):
        lines[:2] = [" ".join(lines[:2])]
    headed = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
    detail = headed.get("Explanation", "").strip() or headed.get("Developer debug context", "").strip()
    return ": ".join([*lines[:1], *filter(None, [detail])])


# How libraries say that there is no memory left: CUDA, its driver, torch's allocators, NCCL and Triton; the
# status codes of cuBLAS and cuDNN (ALLOC_FAILED, ..._DEVICE_ALLOCATION_FAILED); the CPU's; C++. That a kernel
# wants more registers or shared memory than there are (Triton's "out of resource") is no want of memory.
_NO_MEMORY = re.compile(
    r"out[ _]of[ _]memory|ALLOC_FAILED|(DEVICE|HOST)_ALLOCATION_FAILED|ErrorMemoryAllocation"
    r"|(can't|cannot) allocate memory|not enough memory|bad_alloc",
    re.IGNORECASE,
)
# What libraries say when they cannot make their handles or find room for what a convolution works in, and for
# other reasons as well.
_MAYBE_NO_MEMORY = re.compile(r"CU(BLAS|DNN)_STATUS_NOT_INITIALIZED|unable to find an engine to execute")


def out_of_memory(error: BaseException, *, is_full: Callable[[], bool] = lambda: False) -> str | None:
    """The line that says so, where an error, or one that it wraps or came from, is want of memory.

    Args:
        error: of any library; compilers wrap those of what they run, some as text alone.
        is_full: whether the device has next to no memory left, which decides where the error's words do not.
    """
    for one in _chain(error):
        lines = [line.strip()[:300] for line in str(one).splitlines()]
        found = next((line for line in lines if _NO_MEMORY.search(line)), None)
        found = found or next((line for line in lines if _MAYBE_NO_MEMORY.search(line) and is_full()), None)
        if found or isinstance(one, MemoryError):
            return found or "out of memory"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it wraps (torch's compilers: `inner_exception`), what it was raised from or after."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        after = None if one.__suppress_context__ else one.__context__
        found = (getattr(one, "inner_exception", None), one.__cause__, after)
        waiting += [other for other in found if isinstance(other, BaseException)]


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def brief(value: object) -> str:
    """What was given, as a line can show it: long values are cut in the middle."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"
