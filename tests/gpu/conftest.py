"""What a test fails for is in $OUT/failures.txt at once: what pytest prints at its end may come too late.

A GPU is at hand for minutes, and a limit on time may end pytest before it prints anything.
"""

import os
from pathlib import Path
from typing import NamedTuple

import pytest


class Failures(NamedTuple):
    """A plugin that writes down each failure as it happens."""

    path: Path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of a test, or of what it is given."""
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Of a file that cannot be imported."""
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"== {report.nodeid}\n{report.longreprtext}\n\n")


def pytest_configure(config: pytest.Config) -> None:
    """With $OUT; of pytest-xdist's processes the first alone, which hears of all failures."""
    if (out := os.environ.get("OUT")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(Path(out) / "failures.txt"))
