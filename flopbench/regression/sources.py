"""What `flopbench compare` accepts: run folders, and the JSON files of pytest-benchmark."""

from collections.abc import Sequence
from pathlib import Path

from flopbench.errors import FlopbenchError, unknown
from flopbench.regression.compare import METRICS, compare_runs
from flopbench.regression.decision import Comparison
from flopbench.regression.pytest_benchmark import compare_files
from flopbench.results import Run
from flopbench.suites import Metric, MinimumEffect, available_suites, load_suite


def compare_sources(
    base: Path, new: Path, *, suite: str | None = None, metrics: Sequence[str] = ()
) -> Comparison:
    """Compare two runs, or two files of pytest-benchmark.

    Args:
        base: run folder or JSON file, before.
        new: the same kind, after.
        suite: the suite whose minimum effects apply; by default that of the new run where it is known.
        metrics: only these.

    Raises:
        FlopbenchError: not found, of different kinds, not comparable, or a metric is unknown.
    """
    for path in (base, new):
        if not path.exists():
            raise FlopbenchError(
                f"{path} does not exist; give a run folder or a JSON file of pytest-benchmark"
            )
    if base.is_file() != new.is_file():
        raise FlopbenchError(
            f"{base} and {new} are of different kinds: compare run with run, or file with file"
        )
    for metric in metrics:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
    wanted: list[Metric] = [metric for metric in METRICS if metric in metrics]
    if base.is_file():
        if wanted:
            raise FlopbenchError(
                "--metric applies to runs; a file of pytest-benchmark holds seconds and speed-ups"
            )
        return compare_files(base, new, load_suite(suite).minimum_effect if suite else MinimumEffect())
    old_run, new_run = Run.open(base), Run.open(new)
    return compare_runs(old_run, new_run, effects_of(new_run, suite), metrics=wanted)


def effects_of(run: Run, suite: str | None = None) -> MinimumEffect:
    """The minimum effects of a suite, by default of the one that was run, if it is at hand."""
    if suite is None and run.info.suite not in available_suites():
        return MinimumEffect()
    return load_suite(suite or run.info.suite).minimum_effect
