"""Energy of two models that take turns, by counters whose steps the test decides."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flopbench.timing.energy import Meter, Rapl

WATTS = {"baseline": 700.0, "candidate": 400.0}


class Clockwork:
    """A wall clock that the test moves on."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


class Card:
    """Takes `WATTS` while a model runs, else 100 W; its counter is brought up to date now and then."""

    def __init__(self, refresh: float, block: float, look: float = 0.02) -> None:
        self.refresh, self.block, self.look = refresh, block, look
        self.now = Clockwork()
        self.joules = self.shown = self.due = 0.0
        self.meter = Meter(lambda: self.shown, now=self.now)

    def run(self, seconds: float, watts: float, glance: Callable[[], object] = lambda: None) -> None:
        # In milliseconds, and a little off any refresh.
        for step in range(1, round(seconds / 1.01e-3) + 1):
            self.now.time += 1.01e-3
            self.joules += watts * 1.01e-3
            if self.now.time >= self.due:
                self.shown, self.due = self.joules, self.due + self.refresh
            if step % round(self.look * 1e3) == 0:
                glance()

    def rounds(self, count: int, pause: float = 0.0) -> None:
        for _ in range(count):
            for role in ("baseline", "candidate", "candidate", "baseline"):
                with self.meter.turn(role, 10):
                    self.run(self.block, WATTS[role], self.meter.read)
            self.run(pause, 100.0)


@pytest.mark.parametrize(("refresh", "pause"), [(0.02, 0.0), (0.1, 0.0), (0.1, 0.05)])
def test_each_model_has_its_own_power_and_energy_a_call(refresh: float, pause: float):
    card = Card(refresh, block=0.25)
    card.rounds(8, pause)
    found = card.meter.power()
    for role, watts in WATTS.items():
        assert found[role].watts == pytest.approx(watts, rel=0.03)
        assert found[role].joules == pytest.approx(watts * 0.025, rel=0.03)


def test_turns_that_the_counter_cannot_tell_apart_give_the_power_of_the_pair_alone():
    card = Card(refresh=0.1, block=0.03)
    card.rounds(20)
    assert card.meter.power() == {}
    assert card.meter.watts == pytest.approx(550, rel=0.03)


def test_a_counter_that_is_hardly_looked_at_gives_no_figure():
    card = Card(refresh=0.1, block=0.25, look=10.0)
    card.rounds(8)
    assert card.meter.power() == {}


def test_without_a_counter_there_is_nothing():
    meter = Meter(lambda: None)
    with meter.turn("baseline", 1):
        pass
    assert (meter.power(), meter.watts) == ({}, None)


def packages(path: Path, **zones: tuple[str, int]) -> Path:
    for name, (kind, microjoules) in zones.items():
        zone = path / name.replace("_", ":")
        zone.mkdir(exist_ok=True)
        (zone / "name").write_text(f"{kind}\n")
        (zone / "energy_uj").write_text(f"{microjoules}\n")
        (zone / "max_energy_range_uj").write_text("1000000000\n")
    return path


def zones(first: int, second: int, other: int) -> dict[str, tuple[str, int]]:
    return {
        "intel-rapl_0": ("package-0", first),
        "intel-rapl_1": ("package-1", second),
        "intel-rapl_0_0": ("dram", other),
        "intel-rapl_2": ("psys", other),
    }


def test_packages_are_added_up_and_their_counters_wrap_around(tmp_path: Path):
    counter = Rapl(packages(tmp_path, **zones(999_000_000, 5_000_000, 7)))
    assert counter() == 0.0
    packages(tmp_path, **zones(2_000_000, 6_000_000, 900_000_000))
    assert counter() == pytest.approx(3.0 + 1.0)
    packages(tmp_path, **zones(3_000_000, 6_000_000, 0))
    assert counter() == pytest.approx(5.0)


def test_what_the_system_does_not_let_one_read_is_absent(tmp_path: Path):
    assert Rapl(tmp_path)() is None
    counter = Rapl(packages(tmp_path, **zones(1, 1, 1)))
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert counter() is None


def test_a_counter_that_is_known_to_be_quick_needs_no_steps_to_be_seen():
    now = Clockwork()
    meter = Meter(lambda: 50 * now.time, refresh=1e-3, now=now)
    for _ in range(20):
        for role, seconds in (("baseline", 0.3), ("candidate", 0.2), ("candidate", 0.2), ("baseline", 0.3)):
            with meter.turn(role, 1):
                now.time += seconds
    assert meter.power()["candidate"].joules == pytest.approx(10)
    assert meter.power()["baseline"].joules == pytest.approx(15)
