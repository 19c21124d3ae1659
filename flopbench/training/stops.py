"""A training is stopped between two steps, where it can be saved."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# Signals that come together are one: torchrun passes on what the terminal has sent already.
_TOGETHER_SECONDS = 1.0


@contextmanager
def stops_noted() -> Iterator[Callable[[], bool]]:
    """Within it a first Ctrl-C, SIGTERM or SIGHUP is noted, and whoever asks is told; a later one interrupts.

    Signals that are ignored, as `nohup` sees to, stay ignored. In another thread than the main one, where no
    signals arrive, nothing is noted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(time.monotonic())
        if noted[-1] - noted[0] > _TOGETHER_SECONDS:
            raise KeyboardInterrupt
        if number == signal.SIGHUP and callable(handler := before[number]):
            # The command's own handler sees to it that nothing is written to a terminal that is gone.
            with suppress(KeyboardInterrupt):
                handler(number, frame)

    before = {
        int(number): handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
