"""This process's place among those that `torchrun` started, and which of them speaks. Imports no torch."""

import json
import os
import time
from typing import NamedTuple

from flopbench.errors import FlopbenchError

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_VARIABLES = (*_NUMBERS, "MASTER_ADDR", "MASTER_PORT")


class Place(NamedTuple):
    """Which process of how many this is: of all, and of those on this machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def place() -> Place | None:
    """Where torchrun has put this process; None where it did not start it.

    Raises:
        FlopbenchError: the variables by which it tells are incomplete or contradict one another.
    """
    if not os.environ.get("RANK") and os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    if missing := [name for name in _VARIABLES if not os.environ.get(name)]:
        raise _wrong(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    for name in _NUMBERS:
        if not os.environ[name].isdecimal():
            raise _wrong(f"{name} is {os.environ[name]!r}, no number")
    found = Place(*(int(os.environ[name]) for name in _NUMBERS))
    if found.rank >= found.size:
        raise _wrong(f"RANK {found.rank} is not below WORLD_SIZE {found.size}")
    if not found.local_rank < found.local_size <= found.size:
        raise _wrong(
            f"LOCAL_RANK {found.local_rank} is not below LOCAL_WORLD_SIZE {found.local_size}, "
            f"or that is above WORLD_SIZE {found.size}"
        )
    return found


def _wrong(what: str) -> FlopbenchError:
    return FlopbenchError(
        f"the environment is not as torchrun makes it: {what}; start the processes by "
        "torchrun --nproc-per-node=N -m flopbench, or unset RANK and WORLD_SIZE"
    )


def speaks() -> bool:
    """Whether this process is the one that shows what came of a command: the first, or the only one."""
    where = place()
    return where is None or where.rank == 0


def claim(error: BaseException) -> None:
    """Mark an error as one that this process has to tell, whatever its rank."""
    error.claimed = True  # pyright: ignore[reportAttributeAccessIssue]


def tells(error: BaseException) -> bool:
    """Whether it is for this process to tell of an error: the first one, or the only one that has it.

    What goes wrong before processes have met, all of them find, and torchrun tells of one that does so alone.
    """
    return os.environ.get("RANK", "0") == "0" or hasattr(error, "claimed")


def tell_torchrun(line: str) -> None:
    """Let torchrun, where it started this process, show `line` as the reason in its own summary."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    reason = {"message": line, "extraInfo": {"py_callstack": line, "timestamp": str(int(time.time()))}}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"message": reason}, file)
