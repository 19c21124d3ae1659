import numpy as np
import pytest

from flopbench.regression import self_test as module
from flopbench.regression.decision import Outcome
from flopbench.regression.self_test import self_test


class _SimulatedClock:
    """Time follows from the work, with noise; no machine is involved."""

    def __init__(self, noise, drift=0.0):
        self.random = np.random.default_rng(0)
        self.noise, self.drift, self.calls = noise, drift, 0

    def time(self, workload, calls):
        self.calls += calls
        seconds = workload.model.steps * 1e-5 * (1 + self.drift * np.sin(self.calls / 500))
        return [float(seconds * np.exp(self.random.normal(0, self.noise))) for _ in range(calls)], []

    def synchronise(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    def install(**options):
        monkeypatch.setattr(module, "CLOCKS", {"cpu": lambda: _SimulatedClock(**options)})
        monkeypatch.setattr(module.Steps, "forward", lambda self, x: x)

    return install


def test_on_a_calm_machine_it_meets_its_targets(clock):
    clock(noise=0.01)
    power = self_test("cpu", effect=0.05, trials=120)
    assert power.false_alarms == 0.0
    assert power.power >= 0.95
    assert power.holds
    assert power.smallest_found is not None
    assert power.smallest_found <= 0.10
    # A change of just the tolerance is hardly ever let pass as none.
    assert power.share(1.0, Outcome.PASS) <= 0.5


def test_on_a_wild_machine_it_says_so_and_raises_no_alarm(clock):
    clock(noise=0.3, drift=0.2)
    power = self_test("cpu", effect=0.05, trials=60)
    assert power.false_alarms <= 1 / 60
    assert not power.holds


def test_progress_is_told(clock):
    clock(noise=0.01)
    told = []
    self_test("cpu", effect=0.05, trials=4, on_trial=lambda done, of: told.append((done, of)))
    assert told == [(done, 8) for done in range(1, 9)]
