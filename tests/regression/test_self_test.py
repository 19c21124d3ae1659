import numpy as np
import pytest

from flopbench.regression import self_test as module
from flopbench.regression.decision import Outcome
from flopbench.regression.self_test import self_test, upper_limit
from flopbench.timing import bench
from flopbench.timing.clock import Timed
from flopbench.timing.sampling import Rounds


class _SimulatedClock:
    """Time follows from the work, with noise; no machine is involved."""

    def __init__(self, noise, drift=0.0):
        self.random = np.random.default_rng(0)
        self.noise, self.drift, self.calls = noise, drift, 0

    def time(self, workload, calls, lead=0):
        self.calls += calls
        seconds = workload.model.steps * 2e-5 * (1 + self.drift * np.sin(self.calls / 500))
        return Timed((seconds * np.exp(self.random.normal(0, self.noise, calls))).tolist())

    def synchronise(self):
        pass

    def now(self):
        return 0.0


@pytest.fixture
def clock(monkeypatch):
    def install(**options):
        # One for all records: its noise goes on from one to the next.
        simulated = _SimulatedClock(**options)
        monkeypatch.setattr(bench, "CLOCKS", {"cpu": lambda: simulated})
        monkeypatch.setattr(module.Steps, "forward", lambda self, x: x)

    return install


def test_on_a_calm_machine_it_meets_its_targets(clock):
    clock(noise=0.01)
    power = self_test("cpu", effect=0.05, trials=40)
    assert power.false_alarms == 0.0
    assert power.power >= 0.95
    assert power.holds
    assert power.smallest_found is not None
    assert power.smallest_found <= 0.10
    # A change of just the tolerance is hardly ever let pass as none.
    assert power.share(1.0, Outcome.PASS) <= 0.5


def test_on_a_wild_machine_it_says_so_and_raises_no_alarm(clock):
    clock(noise=0.3, drift=0.2)
    power = self_test("cpu", effect=0.05, trials=30)
    assert power.false_alarms <= 1 / 60
    assert not power.holds


def test_progress_is_told(clock):
    clock(noise=0.01)
    told = []
    power = self_test("cpu", effect=0.05, trials=5, on_trial=lambda done, of: told.append((done, of)))
    assert told == [(done, 10) for done in range(1, 11)]
    # Without a change either side may be the base.
    assert [counts.total() for counts in power.outcomes.values()] == [10, 1, 1, 2, 1]


@pytest.mark.parametrize(
    ("events", "trials", "limit"),
    # No event in n trials: 1 − 0.05^(1/n), the "rule of three". One in 20: from tables.
    [(0, 1, 0.95), (0, 60, 0.0487), (1, 20, 0.2161), (5, 5, 1.0)],
)
def test_what_so_few_trials_rule_out(events, trials, limit):
    assert upper_limit(events, trials) == pytest.approx(limit, abs=1e-4)


class _SimulatedTrials(module._Trials):
    """A machine whose speed wanders for minutes (it hits both models) under noise of each record's ratio."""

    device = "cpu"

    def __init__(self, wander, noise, seed):
        self.random = np.random.default_rng(seed)
        self.wander, self.noise, self.state = wander, noise, 0.0

    def _rounds(self, slowdown):
        self.state = 0.8 * self.state + 0.6 * self.random.normal(0, self.wander)
        ratio = np.log(0.8 * (1 + slowdown)) + self.random.normal(0, self.noise)
        return Rounds(baseline=[[float(np.exp(self.state))]], candidate=[[float(np.exp(self.state + ratio))]])


def _failed(slowdown, count, effect=0.05, **machine):
    trials = _SimulatedTrials(seed=0, **machine)
    outcomes = [outcome for _ in range(count) for outcome in trials.trial(slowdown, effect)]
    return sum(outcome is Outcome.FAIL for outcome in outcomes) / len(outcomes)


# As measured on two shared cores: the speed wanders by 8 %, the speed-up of a record by 1.2 %.
SHARED = {"wander": 0.08, "noise": 0.012}


@pytest.mark.parametrize("machine", [SHARED, {"wander": 0.15, "noise": 0.05}], ids=["shared", "wild"])
@pytest.mark.parametrize("effect", [0.01, 0.05])
def test_no_change_hardly_ever_fails_whatever_the_machine_does(machine, effect):
    assert _failed(0.0, 400, effect, **machine) < 0.01


def test_twice_the_minimum_effect_is_found_where_the_noise_allows():
    assert _failed(0.10, 300, **SHARED) >= 0.95


def test_a_change_of_the_minimum_effect_itself_fails_no_more_often_than_chance():
    assert _failed(0.05, 300, **SHARED) <= 0.05
