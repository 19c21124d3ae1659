"""`kill` and a closed terminal stop a command as Ctrl-C does."""

import os
import signal
from collections.abc import Iterator

import pytest

from flopbench.cli.stops import stops_heeded


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_interrupts(number: signal.Signals):
    with stops_heeded(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stops_heeded():
        signal.raise_signal(signal.SIGHUP)


def test_nothing_is_written_to_a_terminal_that_is_gone(monkeypatch: pytest.MonkeyPatch):
    replaced: list[int] = []
    monkeypatch.setattr(os, "isatty", lambda stream: stream == 2)
    monkeypatch.setattr(os, "dup2", lambda source, stream: replaced.append(stream))
    with stops_heeded(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)
    assert replaced == [2]
