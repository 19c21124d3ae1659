"""A suite whose cells take a moment, and a sweep over it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flopbench.cells import Cell
from flopbench.results import CellRecord, FrontierRecord, Run
from flopbench.runner.begin import new_run
from flopbench.runner.sweep import probe_environment
from flopbench.suites import Suite, parse_suite
from tests.support.networks import LARGE, SMALL


class Watcher:
    """Notes what a sweep tells."""

    def __init__(self) -> None:
        self.records: list[CellRecord] = []
        self.started: list[str] = []
        self.phases: list[str] = []
        self.begun: tuple[int, int] = (0, 0)
        self.frontiers: list[FrontierRecord] = []
        self.beforehand: list[list[str]] = []

    def begin(self, run: Run, missing: Sequence[Cell], done: int) -> None:
        self.begun = (len(missing) + done, done)

    def cell(self, cell: Cell) -> None:
        self.started.append(cell.id)

    def report(self, kind: str, value: object) -> None:
        if kind == "phase":
            self.phases.append(str(value))
        elif kind == "beforehand" and isinstance(value, tuple):
            self.beforehand.append([cell.id for cell in value])

    def finished(self, record: CellRecord) -> None:
        self.records.append(record)

    def frontier(self, record: FrontierRecord) -> None:
        self.frontiers.append(record)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture(scope="session")
def environment():
    return probe_environment("cpu")


def small_suite(pairs: list[str] | None = None, **fields: Any) -> Suite:
    profile = {
        "pairs": pairs or [f"{SMALL}@{LARGE}"],
        "batch_sizes": [1, 2],
        "passes": ["forward"],
        "modes": ["eager"],
        "image_sizes": [32],
        "num_classes": 10,
        "cell_seconds": 0.2,
        **fields,
    }
    return parse_suite({"title": "Small", "profiles": {"cpu": profile}}, name="small", where="small.toml")


@pytest.fixture
def start(tmp_path: Path, environment: Any):
    def make(pairs: list[str] | None = None, **fields: Any) -> Run:
        suite = small_suite(pairs, **fields)
        return new_run(suite, suite.profile("cpu"), environment, tmp_path / "results", command="test")

    return make
