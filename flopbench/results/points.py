"""Races as a DataFrame."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flopbench.results.trainings import Accuracy, Entrant, Point, RaceInfo, RacesInfo, Trial

if TYPE_CHECKING:
    import pandas as pd


def points_frame(runs: Iterable[tuple[RacesInfo, Sequence[Trial]]]) -> "pd.DataFrame":
    """A row per race, entrant, seed and evaluation, of runs and their trials.

    A trial without evaluations has one row. Columns: `run`, `device_name`, `race`, `data`, of the entrant
    `entrant` (its role), `name`, `label`, `parameters`, `linear_parameters` and `macs_per_image`, of the
    trial `seed`, `place`, `status`, `reason`, `compile_seconds`, `peak_bytes` and `flags`, and of the
    evaluation what was spent by then (`step`, `samples`, `seconds`, `joules`, `macs`), `images_per_second`
    since the one before, `loss`, and the accuracy: `top1`, `top5`, `nll`, `miou`, the same of mirrored images
    (`mirrored_top1`, …) and of mirror test-time augmentation (`averaged_top1`, …), `flip_consistency`;
    with `ema_` before them those of the averaged weights. `figure` is what decides, of the averaged weights
    where there are some: the `measure` of the race's `task`. `answers_per_second` are images per second of
    the trained network in inference. Shares are between 0 and 1.
    """
    import pandas as pd

    rows = []
    for info, trials in runs:
        known = {(race.key, entrant.key): (race, entrant) for race in info.races for entrant in race.entrants}
        for trial in trials:
            if of := known.get((trial.race, trial.entrant)):
                rows += [_row(info, *of, trial, point) for point in trial.points or (None,)]
    return pd.DataFrame(rows)


def _row(
    info: RacesInfo, race: RaceInfo, entrant: Entrant, trial: Trial, point: Point | None
) -> dict[str, Any]:
    return {
        "run": info.id,
        "device_name": info.environment.device_name,
        "race": race.key,
        "data": race.data.name,
        "task": race.recipe.task,
        "measure": race.measure.name,
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
        "answers_per_second": trial.inference and trial.inference.rate,
        "flags": ", ".join(dict.fromkeys(flag.kind for flag in trial.flags)),
        "step": point and point.step,
        "samples": point and point.samples,
        "seconds": point and point.seconds,
        "joules": point and point.joules,
        "macs": point and point.macs,
        "images_per_second": point and point.rate,
        "loss": point and point.loss,
        "figure": point and point.best.plain.figure,
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
        for name in ("top1", "top5", "nll", "miou")
    }
    return {**figures, "flip_consistency": accuracy and accuracy.flip_consistency}
