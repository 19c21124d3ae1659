"""What was measured of operations on GPUs: what "auto" goes by there, and nothing else.

The table is measured.json beside this file, which `python -m tests.gpu.table` makes of what a GPU measured:
rows for one card say nothing of another. They are of operations alone, for their neighbours in a network are
products of the library. Where torch.compile traces, the time of torch's own is that of what inductor makes of
them.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from flopbench.errors import FlopbenchError

TABLE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Row:
    """One operation at one size.

    Attributes:
        card: the GPU, as torch calls it.
        date: of the measurement, year-month-day.
        torch: its version.
        operation: as records call it.
        parts: how many parts of a feature the operation was of.
        dtype: of the parts, as torch calls it.
        compiled: whether torch.compile traced it.
        gradients: whether they were taken, and their time is in it.
        elements: of the first part.
        ms: milliseconds by what it ran as, "torch" for torch's own operators.
    """

    card: str
    date: str
    torch: str
    operation: str
    parts: int
    dtype: str
    compiled: bool
    gradients: bool
    elements: int
    ms: dict[str, float]


class Verdict(NamedTuple):
    """Whether one way was measured to be the fastest, None if nothing was; and why."""

    faster: bool | None
    why: str


def read_rows(path: Path) -> list[Row]:
    """The rows of a table.

    Raises:
        FlopbenchError: it is none.
    """
    try:
        return parse_rows(path.read_text(encoding="utf-8", errors="replace"), path.name)
    except OSError as error:
        problem = f"{path.name} cannot be read: {error.strerror}"
    except FlopbenchError as error:
        problem = str(error)
    raise FlopbenchError(f"{problem}; install flopbench again, or write [] into {path}")


def parse_rows(text: str, where: str) -> list[Row]:
    """The rows of a JSON list.

    Raises:
        FlopbenchError: it is none, with the place, which is in `where`.
    """
    # Where a compiler asks, this is imported outside of what it traces.
    from pydantic import TypeAdapter, ValidationError

    from flopbench.frozen import complaint, place

    try:
        return TypeAdapter(list[Row]).validate_json(text)
    except ValidationError as error:
        within = place(error.errors()[0]["loc"])
        raise FlopbenchError(f"{where}: {within}{': ' if within else ''}{complaint(error)}") from None


def verdict(operation: str, way: str, parts: int, x: Tensor) -> Verdict:
    """What the table says of running `operation` as `way` on so many parts, the first of which is `x`.

    What was measured of features within a factor of 4 in size is added up to one decision.
    """
    compiled = torch.compiler.is_compiling()
    graded = torch.is_grad_enabled() and x.requires_grad
    asked = operation, way, parts, x.device, x.dtype, compiled, graded
    # The size last: where torch.compile traces, what it is compared with becomes a guard.
    size = None if _why(*asked, None) else size_class(x.numel())
    return Verdict(_faster(*asked, size), _why(*asked, size))


def size_class(elements: int) -> int:
    """How often `elements` is divided by 4 to nothing."""
    size = 0
    while elements > 0:
        elements //= 4
        size += 1
    return size


# Asked outside the trace, where the table can be read.


@torch.compiler.assume_constant_result
def _faster(*asked: object) -> bool | None:
    return _look_up(*asked).faster


@torch.compiler.assume_constant_result
def _why(*asked: object) -> str:
    return _look_up(*asked).why


@cache
def _look_up(
    operation: str,
    way: str,
    parts: int,
    device: torch.device,
    dtype: torch.dtype,
    compiled: bool,
    graded: bool,
    size: int | None,
) -> Verdict:
    """Without a size: why there is none to ask for, or nothing."""
    card = _card(device)
    rows = [row for row in read_rows(TABLE) if row.card == card]
    if not rows:
        return Verdict(None, f"not measured on {card}")
    short = str(dtype).removeprefix("torch.")
    case = operation, parts, short, compiled, graded
    rows = [
        row
        for row in rows
        if (row.operation, row.parts, row.dtype, row.compiled, row.gradients) == case
        and {way, "torch"} <= row.ms.keys()
    ]
    if not rows:
        said = [short, f"{parts} parts", *["compiled"] * compiled, *["with gradients"] * graded]
        return Verdict(None, f"not measured on {card} in {', '.join(said)}")
    if size is None:
        return Verdict(None, "")
    rows = [row for row in rows if size_class(row.elements) == size]
    if not rows:
        return Verdict(None, f"not measured on {card} at this size")
    ways = set.intersection(*(set(row.ms) for row in rows))
    ms = {name: sum(row.ms[name] for row in rows) for name in sorted(ways)}
    ours, other = ms.pop(way), min(ms, key=ms.__getitem__)
    theirs = ms[other]
    percent = f"{abs(theirs / ours - 1):.0%} {'faster' if ours < theirs else 'slower'} than {other}"
    newest = max(rows, key=lambda row: row.date)
    return Verdict(ours < theirs, f"{percent} on {card}, {newest.date}, torch {newest.torch}")


@cache
def _card(device: torch.device) -> str:
    if device.type != "cuda" or not torch.cuda.is_available():
        return device.type
    return torch.cuda.get_device_name(device)
