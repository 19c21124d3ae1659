"""`kill` and a closed terminal stop a command in good order, as Ctrl-C does: what is measured is kept."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def stops_heeded() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise KeyboardInterrupt, unless another decides on them (`nohup`)."""
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        if number == signal.SIGHUP and terminals:
            # The terminal is gone, and writing to it would fail.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in terminals:
                os.dup2(nowhere, stream)
        raise KeyboardInterrupt

    heeded = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in heeded:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)
