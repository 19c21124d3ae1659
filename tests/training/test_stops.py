"""The first signal is noted, what follows in a while interrupts."""

import signal

import pytest

from flopbench.cli.stops import stops_heeded
from flopbench.training import stops
from flopbench.training.stops import stops_noted

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_noted(number: signal.Signals):
    before = signal.getsignal(number)
    with stops_heeded(), stops_noted() as asked:
        assert not asked()
        signal.raise_signal(number)
        assert asked()
        # torchrun passes on what the terminal has sent already.
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", NUMBERS)
def test_a_second_one_interrupts(number: signal.Signals, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stops, "_TOGETHER_SECONDS", -1.0)
    with stops_heeded(), stops_noted(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops_noted() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)
