"""A/A runs: what this machine cannot tell apart, and what it can do at most."""

import statistics
from collections.abc import Sequence

import numpy as np

from flopbench.pairs import Pair
from flopbench.regression.compare import by_cell
from flopbench.results import Calibration, CellRecord, Peaks, Run, write_record
from flopbench.suites import Profile


def a_a_profile(profile: Profile) -> Profile:
    """The profile with every pair's baseline against itself: the true speed-up of each cell is 1."""
    names = dict.fromkeys(pair.baseline for pair in profile.pairs)
    return profile.model_copy(
        update={
            "pairs": tuple(Pair(baseline=name, candidate=name) for name in names),
            "memory_frontier": False,
            "serving": False,
        }
    )


def visible_change(records: Sequence[CellRecord]) -> float:
    """The smallest relative change that four of five A/A measurements of one cell would have shown.

    How far from 1 a replicate's 95 % interval reaches, a change within which looks like no change; of
    that the 80th percentile over the replicates, 80 % being the usual power.

    Raises:
        ValueError: no record has a speed-up.
    """
    reaches = [max(1 / record.speedup.low, record.speedup.high) - 1 for record in records if record.speedup]
    return float(np.quantile(reaches, 0.8))


def coverage(records: Sequence[CellRecord]) -> tuple[int, int]:
    """(intervals that contain 1, intervals) of A/A measurements; 95 of 100 are expected to."""
    intervals = [record.speedup for record in records if record.speedup]
    return sum(interval.low <= 1 <= interval.high for interval in intervals), len(intervals)


def calibrate(run: Run, peaks: Peaks) -> Calibration:
    """The calibration from an A/A run that has been measured; written beside it as `calibration.json`.

    Args:
        run: of `a_a_profile`.
        peaks: of the same device, measured.
    """
    cells = by_cell(record for record in run.records() if record.status == "ok")
    calibration = Calibration(
        peaks=peaks,
        visible_change={cell: round(visible_change(records), 6) for cell, records in cells.items()},
        environment=run.info.environment,
    )
    write_record(run.path / "calibration.json", calibration)
    return calibration


def in_words(calibration: Calibration, records: Sequence[CellRecord]) -> str:
    """What the calibration says about this machine, in two sentences."""
    contained, count = coverage(records)
    changes = list(calibration.visible_change.values())
    typical, worst = statistics.median(changes), max(changes)
    return (
        f"Differences under {typical:.1%} are invisible here in a typical cell, and under {worst:.1%} in the "
        f"noisiest. {contained} of {count} A/A intervals contain 1."
    )
