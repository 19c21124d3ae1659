"""Races as a DataFrame."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flopbench.results.trainings import Accuracy, Entrant, Point, RaceInfo, Trial

if TYPE_CHECKING:
    import pandas as pd


def points_frame(races: Iterable[RaceInfo], trials: Iterable[Trial]) -> "pd.DataFrame":
    """A row per race, entrant, seed and evaluation; a trial without evaluations has one row.

    Columns: `race`, `data`, of the entrant `entrant` (its role), `name`, `label`, `parameters`,
    `linear_parameters` and `macs_per_image`, of the trial `seed`, `place`, `status`, `reason`,
    `compile_seconds`, `peak_bytes` and `flags`, and of the evaluation what was spent by then (`step`,
    `samples`, `seconds`, `joules`, `macs`), `images_per_second` since the one before, `loss`, and the
    accuracy: `top1`, `top5`, `nll`, the same of mirrored images (`mirrored_top1`, …),
    `flip_consistency`, and with mirror test-time augmentation (`averaged_top1`, …); `ema_top1` and so on of
    the averaged weights. Shares are between 0 and 1.
    """
    import pandas as pd

    known = {(race.key, entrant.key): (race, entrant) for race in races for entrant in race.entrants}
    rows = [
        _row(*known[trial.race, trial.entrant], trial, point)
        for trial in trials
        if (trial.race, trial.entrant) in known
        for point in trial.points or (None,)
    ]
    return pd.DataFrame(rows)


def _row(race: RaceInfo, entrant: Entrant, trial: Trial, point: Point | None) -> dict[str, Any]:
    return {
        "race": race.key,
        "data": race.data.name,
        "entrant": entrant.key,
        "name": entrant.name,
        "label": entrant.label,
        "parameters": entrant.parameters,
        "linear_parameters": entrant.linear_parameters,
        "macs_per_image": entrant.macs,
        "seed": trial.seed,
        "place": trial.place,
        "status": trial.status,
        "reason": trial.reason,
        "compile_seconds": trial.compile_seconds,
        "peak_bytes": trial.peak_bytes,
        "flags": ", ".join(dict.fromkeys(flag.kind for flag in trial.flags)),
        "step": point and point.step,
        "samples": point and point.samples,
        "seconds": point and point.seconds,
        "joules": point and point.joules,
        "macs": point and point.macs,
        "images_per_second": point and point.rate,
        "loss": point and point.loss,
        **_figures(point and point.accuracy),
        **{f"ema_{name}": value for name, value in _figures(point and point.ema).items()},
    }


def _figures(accuracy: Accuracy | None) -> dict[str, float | None]:
    scores = {
        "": accuracy and accuracy.plain,
        "mirrored_": accuracy and accuracy.mirrored,
        "averaged_": accuracy and accuracy.averaged,
    }
    figures: dict[str, float | None] = {
        f"{prefix}{name}": own and getattr(own, name)
        for prefix, own in scores.items()
        for name in ("top1", "top5", "nll")
    }
    return {**figures, "flip_consistency": accuracy and accuracy.flip_consistency}
