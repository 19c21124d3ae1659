"""Calibration: A/A runs tell what a machine cannot see."""

from pathlib import Path

import pytest

from flopbench.regression.calibrate import a_a_profile, calibrate, coverage, in_words, visible_change
from flopbench.results import CellRecord, Interval, Peaks, Run
from flopbench.suites import load_suite
from tests.support.runs import make_run

PEAKS = Peaks(flops_per_second={"fp32": 1e11}, copy_bytes_per_second=1e10)


def records(run: Run, *intervals: tuple[float, float]) -> list[CellRecord]:
    record = run.records()[0]
    return [
        record.model_copy(
            update={"replicate": index, "speedup": Interval(estimate=(low + high) / 2, low=low, high=high)}
        )
        for index, (low, high) in enumerate(intervals)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", batch_sizes=(1,))


def test_every_baseline_runs_against_itself():
    profile = load_suite("vit").profile("cpu")
    pairs = a_a_profile(profile).pairs
    assert [(pair.baseline, pair.candidate) for pair in pairs] == [
        ("vit_s16", "vit_s16"),
        ("vit_b16", "vit_b16"),
    ]
    assert len({cell.id for cell in a_a_profile(profile).cells("cpu")}) == 24


def test_a_change_within_the_intervals_is_invisible(run: Run):
    assert visible_change(records(run, (0.98, 1.02))) == pytest.approx(1 / 0.98 - 1)
    quiet = [(0.99, 1.01)] * 9
    assert visible_change(records(run, *quiet, (0.5, 2.0))) == pytest.approx(1 / 0.99 - 1)
    assert visible_change(records(run, *quiet[:5], *[(0.9, 1.1)] * 5)) == pytest.approx(1 / 0.9 - 1)


def test_coverage_counts_the_intervals_that_hold_the_truth(run: Run):
    assert coverage(records(run, (0.9, 1.1), (1.01, 1.1), (0.8, 0.99))) == (1, 3)


def test_the_calibration_is_kept_beside_its_run(run: Run):
    calibration = calibrate(run, PEAKS)
    assert run.calibration() == calibration
    assert set(calibration.visible_change) == {record.cell.id for record in run.records()}
    words = in_words(calibration, run.records())
    assert "are invisible here in a typical cell" in words
    assert f"of {len(run.records())} A/A intervals contain 1." in words
