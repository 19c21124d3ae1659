"""What of a compiled network does not run compiled, place by place, and why."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flopbench.errors import gist
from flopbench.private import (
    compiled_graphs,
    failed_guards,
    generated_files,
    graph_breaks,
    graphs_not_captured,
    untraced,
)
from flopbench.results import Flag

# In generated code, the call of an operator that inductor has no code for.
_OPERATOR = re.compile(r"\btorch\.ops\.(\w+)\.(\w+)\.\w+\(")
# Kernels of libraries, which nobody would rather have generated; flopbench's own, of which is recorded what
# ran; and inductor's, which compute nothing.
_MEANT = re.compile(
    r"(flopbench|inductor|mkldnn|mkl|quantized)::|\w+::\w*(attention|convolution|_mm|addmm|bmm)"
)
_FOLDERS = re.compile(r"(?:/[^/\s'\"]+)*/(?=[^/\s'\"]+\.py)")
_LONGEST, _MOST = 200, 4


@contextmanager
def left_out() -> Iterator[Counter[str]]:
    """Find what the compiler leaves out in first calls that are made within it.

    Yields:
        The reasons, with the user's own line where it is known, and how often each; filled at the end. Graph
        breaks, functions left to Python as a whole, operators that inductor calls as they are, and graphs
        that were to be a CUDA graph and are none.
    """
    found: Counter[str] = Counter()
    breaks, (functions, unknown) = len(graph_breaks()), untraced()
    files, uncaptured = len(generated_files()), graphs_not_captured()
    with _said_of_captures() as said:
        yield found
    for broken in graph_breaks()[breaks:]:
        found[f"graph break, {_in_words(broken.reason)}{_place(broken.user_stack)}"] += 1
    functions_now, unknown_now = untraced()
    if functions_now > functions:
        for reason, times in (unknown_now - unknown).items():
            found[f"function left to Python, {_in_words(reason)}"] += times
    for file in generated_files()[files:]:
        for operator in _OPERATOR.findall(Path(file).read_text(encoding="utf-8")):
            name = "::".join(operator)
            if not _MEANT.match(name):
                found[f"operator {name}, for which inductor has no code"] += 1
    untold = graphs_not_captured() - uncaptured - len(said)
    for reason in [*said, *["and torch does not say why"] * untold]:
        found[f"no CUDA graph, {_short(reason)}"] += 1


@contextmanager
def compiled_again() -> Iterator[Counter[str]]:
    """Find what calls within it compile anew, though their like was compiled before. Yields as `left_out`."""
    found: Counter[str] = Counter()
    graphs, failed = sum(compiled_graphs()), failed_guards()
    yield found
    if sum(compiled_graphs()) > graphs:
        for failure, times in (failed_guards() - failed).items() or [("", 1)]:
            # Between them stands what was to hold; the line that reads it is cut off where it is repeated.
            what = re.sub(r"^\d+/\d+: |\s*(\(HINT|# ).*", "", failure.splitlines()[0] if failure else "")
            found["compiled again in the second call" + (f", no longer: {_short(what)}" if what else "")] += (
                times
            )


def flagged(label: str, found: Mapping[str, int]) -> Iterator[Flag]:
    """The flag on a cell of whose models one, `label`, is not compiled as a whole."""
    if found:
        reasons = [f"{reason} ({times} times)" if times > 1 else reason for reason, times in found.items()]
        more = [f"and {len(reasons) - _MOST} more"] if len(reasons) > _MOST else []
        yield Flag(
            kind="not compiled",
            message=f"{label}: {'; '.join(reasons[:_MOST] + more)}",
            remedy="keep to tensors (torch.where, torch.cond), register fake kernels, or measure eager",
        )


def _in_words(reason: str) -> str:
    """What it cannot trace, of the many lines that the compiler says of it."""
    return "data-dependent branching" if reason.startswith("generic_jump") else _short(gist(reason))


def _place(stack: list[Any]) -> str:
    """The innermost line that is not torch's own."""
    frames = [frame for frame in stack if "/torch/" not in frame.filename] or stack
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""


def _short(text: str) -> str:
    """On one line; a record says neither where on a machine files lie nor where in memory objects."""
    text = re.sub(r" at 0x[0-9a-f]+", "", _FOLDERS.sub("", " ".join(text.split())))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


@contextmanager
def _said_of_captures() -> Iterator[list[str]]:
    """What inductor logs within it of graphs that it does not capture."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "skipping cudagraphs" in (message := record.getMessage()):
                said.append(
                    message.partition("due to ")[2].splitlines()[0] if "due to " in message else message
                )

    listener, logger = Listener(), logging.getLogger("torch._inductor")
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)
