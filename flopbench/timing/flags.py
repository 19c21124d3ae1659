"""What makes a measurement less trustworthy, each with its remedy."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from flopbench.results import POWER_LIMIT, UNRESOLVED, Flag
from flopbench.timing.sampling import Rounds
from flopbench.timing.statistics import MIN_ROUNDS, Array, outliers

# Share of a call's device time from which on the host's dispatch is what is being timed.
LAUNCH_BOUND = 0.9
# Times the precision asked for that an interval may be wide before the cell answers nothing.
TOO_WIDE = 10
# Share of a core that others may take before a CPU measurement counts as disturbed.
FOREIGN_CORES = 0.2
# Change from the first to the last third of the calls from which on a model drifts.
DRIFT = 0.05
# Distance of the two clusters, relative to their middle, and share of the variance that they explain.
BIMODAL_DISTANCE, BIMODAL_EXPLAINED, BIMODAL_SHARE = 0.05, 0.85, 0.15


def find_flags(
    rounds: Rounds, state: Mapping[str, Any], *, precision: float, shortened: bool = False
) -> tuple[Flag, ...]:
    """Everything questionable about a pair's samples and the device's state while they were taken.

    Args:
        rounds: the samples.
        state: of the device, as its watch reports it.
        precision: that was asked for, relative.
        shortened: whether the turns were too short for each model to meet its own clocks (`timing.pacing`).
    """
    shapes = (_shape("baseline", rounds.baseline), _shape("candidate", rounds.candidate))
    return (
        *_too_little(rounds, precision),
        *_launch_bound(rounds),
        *_unsettled(state, shortened),
        *device_flags(state),
        *chain(*shapes),
    )


def _too_little(rounds: Rounds, precision: float) -> Iterator[Flag]:
    if len(rounds.baseline) < MIN_ROUNDS:
        yield Flag(
            kind="few-rounds",
            message=f"only {len(rounds.baseline)} rounds fitted, {MIN_ROUNDS} make an interval reliable",
            remedy="give the cell more time (--cell-seconds) or a smaller batch",
        )
    if rounds.stop != "precision" and rounds.interval and rounds.interval.half_width > precision:
        width = rounds.interval.half_width
        yield Flag(
            kind=UNRESOLVED if width > TOO_WIDE * precision else "noisy",
            message=f"the interval is ±{width:.1%}, wider than the ±{precision:.1%} asked for",
            remedy="a quieter machine, fewer threads (--threads), more time (--cell-seconds; in pytest "
            "--benchmark-max-time), or a wider --precision",
        )


def _launch_bound(rounds: Rounds) -> Iterator[Flag]:
    bound = []
    for role, host, waited, device in (
        ("baseline", rounds.baseline_host, rounds.baseline_waited, rounds.baseline),
        ("candidate", rounds.candidate_host, rounds.candidate_waited, rounds.candidate),
    ):
        # Long to dispatch, yet dispatched before the device came to it, is no matter.
        if not host or np.mean(_flat(waited)) <= 0.5:
            continue
        if np.median(_flat(host)) >= LAUNCH_BOUND * np.median(_flat(device)):
            bound.append(role)
    if bound:
        yield Flag(
            kind="launch-bound",
            message=f"{' and '.join(bound)}: launching takes the host as long as the work takes the device",
            remedy="a larger batch, or --mode cuda-graph",
        )


def _unsettled(state: Mapping[str, Any], shortened: bool) -> Iterator[Flag]:
    # Where nobody tells what holds the clocks back, it may be power.
    reasons = state.get("throttle_reasons", ["power, for all that is known"])
    if shortened and any("power" in reason for reason in reasons):
        yield Flag(
            kind="unsettled",
            message="turns too short for each model to meet its own clocks at the GPU's power limit",
            remedy="more time (--cell-seconds 6), or fixed clocks (nvidia-smi -lgc)",
        )


def device_flags(state: Mapping[str, Any]) -> Iterator[Flag]:
    """What of the device's state, as its watch reports it, makes times less trustworthy."""
    # A GPU at its power limit is as it should be under load; what is then to be asked of the turns is asked
    # in `_unsettled`.
    if reasons := [reason for reason in state.get("throttle_reasons", ()) if reason != POWER_LIMIT]:
        shares = state.get("throttled", {})
        said = [f"{name} ({shares[name]:.0%} of the time)" if name in shares else name for name in reasons]
        yield Flag(
            kind="throttled",
            message=f"the GPU held its clocks back: {', '.join(said)}",
            remedy="better cooling and power supply, or clocks fixed so low that they last (nvidia-smi -lgc)",
        )
    if state.get("foreign_processes"):
        yield Flag(
            kind="disturbed",
            message=f"{state['foreign_processes']} other process(es) used the GPU",
            remedy="a GPU of one's own",
        )
    if state.get("foreign_cores", 0.0) > FOREIGN_CORES:
        yield Flag(
            kind="disturbed",
            message=f"other processes kept {state['foreign_cores']:.1f} cores busy",
            remedy="stop them, or measure when the machine is idle",
        )


def _shape(role: str, rows: list[list[float]]) -> Iterator[Flag]:
    seconds = np.array(_flat(rows))
    if len(seconds) < 2 * MIN_ROUNDS:
        return
    third = len(seconds) // 3
    drift = float(np.median(seconds[-third:]) / np.median(seconds[:third]) - 1)
    if abs(drift) > DRIFT:
        yield Flag(
            kind="drifting",
            message=f"{role}: the last calls took {drift:+.0%} against the first",
            remedy="longer warm-up or fixed clocks; the speed-up, taken within rounds, hardly feels it",
        )
    distance = _two_modes(seconds)
    strange = int(outliers(seconds).sum())
    if distance is not None:
        yield Flag(
            kind="bimodal",
            message=f"{role}: the calls take two different times, {distance:.0%} apart",
            remedy="fixed clocks, pinned threads (taskset), or a machine without neighbours",
        )
    elif strange > 0.1 * len(seconds):
        yield Flag(
            kind="outliers",
            message=f"{role}: {strange} of {len(seconds)} calls are outliers",
            remedy="stop what else runs on the machine",
        )


def _two_modes(seconds: Array) -> float | None:
    """Relative distance of two clusters where there clearly are two, else None.

    The best split of the sorted values in two (that of one-dimensional 2-means) has to explain nearly
    all the variance, with a fair share on either side: a normal sample's best split explains 64 %.
    """
    values = np.sort(seconds)
    n = len(values)
    total = values.var()
    if n < 2 * MIN_ROUNDS or total == 0:
        return None
    left = np.arange(1, n)
    sums = np.cumsum(values)[:-1]
    means_left, means_right = sums / left, (values.sum() - sums) / (n - left)
    between = left * (n - left) / n**2 * (means_right - means_left) ** 2
    best = int(between.argmax())
    share = min(best + 1, n - best - 1) / n
    distance = float((means_right[best] - means_left[best]) / np.median(values))
    clear = between[best] / total > BIMODAL_EXPLAINED and share >= BIMODAL_SHARE
    return distance if clear and distance > BIMODAL_DISTANCE else None


def _flat(rows: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in rows for value in row]
