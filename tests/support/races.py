"""Synthetic races that look like ones that were run, for tests of whatever reads their folders.

Accuracy rises over the steps to a final value per data set and role, with a deviation per seed that all
entrants share, one per trial, and one per evaluation; times follow the MACs and a rate. Everything follows
from `seed`.

    info, trials = make_races(("digits",), seeds=3, finals={"candidate": 0.62})
    write_races(tmp_path / "races", info, trials)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flopbench.recipes import Mix, Optimiser, Race, Recipe
from flopbench.results.measures import MIOU
from flopbench.results.records import Status
from flopbench.results.trainings import (
    Accuracy,
    DataInfo,
    Entrant,
    Inference,
    Point,
    RaceInfo,
    RacesInfo,
    Role,
    Scores,
    Trial,
)
from tests.support.runs import CPU, Device, environment


@dataclass(frozen=True)
class Runner:
    """What a role is like: its share of the MACs and parameters of X, and of X's images per second."""

    label: str
    name: str
    work: float
    speed: float


RUNNERS: dict[Role, Runner] = {
    "baseline": Runner("{0}", "vit_ti16", 1.0, 1.0),
    "candidate": Runner("E({0})", "vit_ti16.flop", 0.52, 1.4),
    "mirror": Runner("{0}", "vit_ti16", 1.0, 1.0),
    "wide": Runner("E({0}) √2 wider", "vit_ti16.flop", 1.03, 0.85),
    "half-width": Runner("{0} of half the MACs by width", "vit_ti16", 0.51, 1.6),
    "half-depth": Runner("{0} of half the MACs by depth", "vit_ti16", 0.5, 1.9),
}

FINALS: dict[str, dict[Role, float]] = {
    "animal-shape-mnist": {
        "baseline": 0.90,
        "candidate": 0.935,
        "mirror": 0.92,
        "wide": 0.945,
        "half-width": 0.87,
        "half-depth": 0.88,
    },
    "fashion-mnist": {
        "baseline": 0.902,
        "candidate": 0.902,
        "mirror": 0.90,
        "wide": 0.905,
        "half-width": 0.88,
        "half-depth": 0.885,
    },
    "digits": {
        "baseline": 0.97,
        "candidate": 0.80,
        "mirror": 0.93,
        "wide": 0.81,
        "half-width": 0.95,
        "half-depth": 0.955,
    },
}
"""What decides at the end, top-1 or mIoU, by data set and role."""

_ASYMMETRY = {"animal-shape-mnist": 0.004, "fashion-mnist": 0.05, "digits": 0.12}
_IMAGES = {"animal-shape-mnist": (8_716, 1_000), "fashion-mnist": (60_000, 10_000), "digits": (1_437, 360)}

PARAMETERS, MACS = 5_717_416, 1_300_000_000
"""Of X."""

IMAGES_PER_SECOND = 400.0
"""Of X in training."""


def recipe(**changes: Any) -> Recipe:
    """A small recipe, with the given fields replaced."""
    fields: dict[str, Any] = {
        "name": "cpu-small",
        "title": "Small images on a CPU",
        "epochs": 10,
        "batch_size": 128,
        "image_size": (28, 28),
        "ema": 0.99,
        "optimiser": Optimiser(name="adamw", learning_rate=1e-3, weight_decay=0.05),
    }
    if changes.get("task", "classification") == "classification":
        fields["mix"] = Mix(mixup=0.8, cutmix=1.0)
    return Recipe(**{**fields, **changes})


def make_races(
    sets: Sequence[str] = ("animal-shape-mnist", "fashion-mnist", "digits"),
    *,
    network: str = "ViT-Ti/16",
    rivals: Sequence[str] = ("mirror", "wide", "half-width", "half-depth"),
    seeds: int = 3,
    evaluations: int = 8,
    target: float | None = None,
    finals: Mapping[str, float] | None = None,
    spread: float = 0.004,
    speeds: Mapping[str, float] | None = None,
    joules: bool = False,
    device: Device = CPU,
    statuses: Mapping[tuple[str, int], Status] | None = None,
    left_out: int = 0,
    answers: bool = False,
    seed: int = 0,
    info: Mapping[str, Any] | None = None,
    **recipe_changes: Any,
) -> tuple[RacesInfo, list[Trial]]:
    """Races on data sets, and their trials in the order in which they would have run.

    Args:
        sets: their names; a race on each.
        network: the label of X.
        rivals: who runs beside X and E(X).
        seeds: how many.
        evaluations: points per trial.
        target: in per cent of what decides, as declared.
        finals: what decides at the end by role, in place of `FINALS`.
        spread: the standard deviation of what decides a trial; seeds and evaluations have half of it each.
        speeds: images per second by role as a multiple of X's, in place of those of `RUNNERS`.
        joules: whether energy is known.
        device: `CPU`, `H200`, …
        statuses: of trials that did not end well, by role and seed; they have half of their points.
        left_out: trials at the end of the run that have not run yet.
        answers: whether the trained networks were timed in inference: as fast as in training, times three.
        seed: of the noise.
        info: fields of RacesInfo that are others.
        recipe_changes: fields of the recipe that are others, such as its task.
    """
    used = recipe(**recipe_changes)
    roles: list[Role] = ["baseline", "candidate", *(role for role in RUNNERS if role in rivals)]
    races, trials = [], []
    for number, name in enumerate(sets):
        rng = np.random.default_rng((seed, number))
        images, held_out = _IMAGES.get(name, (10_000, 1_000))
        race = RaceInfo(
            key=f"vit_ti16.flop/{name}",
            declared=Race(
                recipe=used.name,
                pair="vit_ti16.flop",
                data=name,
                rivals=tuple(rivals),  # pyright: ignore[reportArgumentType]
                seeds=seeds,
                target=target,
            ),
            recipe=used,
            data=_data(name, "training", images),
            validation=_data(name, "validation", held_out),
            entrants=tuple(_entrant(role, network) for role in roles),
        )
        races.append(race)
        level = {**FINALS.get(name, FINALS["fashion-mnist"]), **(finals or {})}
        shared = rng.normal(0, spread / 2, seeds)
        place = 0
        for own in range(seeds):
            for role in roles if own % 2 == 0 else roles[::-1]:
                runner = RUNNERS[role]
                speed = (speeds or {}).get(role, runner.speed)
                points = _points(
                    used,
                    race,
                    level[role] + shared[own] + rng.normal(0, spread),
                    evaluations,
                    rate=IMAGES_PER_SECOND * speed * float(np.exp(rng.normal(0, 0.01))),
                    work=runner.work,
                    watts=60.0 if joules else None,
                    symmetric=RUNNERS[role].name.endswith("flop"),
                    noise=spread / 2,
                    rng=rng,
                )
                status = (statuses or {}).get((role, own), "ok")
                if status != "ok":
                    points = points[: len(points) // 2]
                trials.append(
                    Trial(
                        race=race.key,
                        entrant=role,
                        seed=own,
                        place=place,
                        status=status,
                        reason="" if status == "ok" else "the loss is not a number at step 12",
                        started="2026-11-27T12:00:00+00:00",
                        wall_seconds=points[-1].seconds * 1.2 if points else 1.0,
                        compile_seconds=8.5,
                        peak_bytes=600_000_000,
                        points=points,
                        inference=Inference(images=50, seconds=(50 / (3 * IMAGES_PER_SECOND * speed),) * 5)
                        if answers and status == "ok"
                        else None,
                    )
                )
                place += 1
    fields: dict[str, Any] = {
        "id": "races-cpu-20261127-120000",
        "suite": "race-small",
        "title": "Small races",
        "command": "flopbench race --suite race-small",
        "created": "2026-11-27T12:00:00+00:00",
        "environment": environment(device),
        "races": tuple(races),
    }
    return RacesInfo(**{**fields, **(info or {})}), trials[: len(trials) - left_out]


def write_races(path: Path, info: RacesInfo, trials: Sequence[Trial]) -> Path:
    """A folder of races at `path`, as `flopbench race` leaves it."""
    path.mkdir(parents=True)
    (path / "races.json").write_text(info.model_dump_json(by_alias=True) + "\n", encoding="utf-8")
    lines = [trial.model_dump_json(by_alias=True) + "\n" for trial in trials]
    (path / "trials.jsonl").write_text("".join(lines), encoding="utf-8")
    return path


def _data(name: str, split: str, images: int) -> DataInfo:
    return DataInfo(
        name=name,
        split=split,
        images=images,
        classes=10,
        digest="0123456789ab",
        mirror_asymmetry=_ASYMMETRY.get(name),
        oriented=name == "digits" if name in _ASYMMETRY else None,
    )


def _entrant(role: Role, network: str) -> Entrant:
    runner = RUNNERS[role]
    return Entrant(
        key=role,
        name=runner.name,
        label=runner.label.format(network),
        mirror=0.5 if role == "mirror" else 0.0,
        parameters=round(PARAMETERS * runner.work),
        linear_parameters=round(0.99 * PARAMETERS * runner.work),
        macs=round(MACS * runner.work),
    )


def _points(
    used: Recipe,
    race: RaceInfo,
    final: float,
    evaluations: int,
    *,
    rate: float,
    work: float,
    watts: float | None,
    symmetric: bool,
    noise: float,
    rng: np.random.Generator,
) -> tuple[Point, ...]:
    steps = max(evaluations, int(used.epochs * (race.data.images // used.batch_size)))
    points = []
    for number in range(1, evaluations + 1):
        step = round(steps * number / evaluations)
        samples = step * used.batch_size
        done = step / steps
        top1 = 0.1 + (final - 0.1) * (1 - (1 - done) ** 3) + (rng.normal(0, noise) if done < 1 else 0)
        accuracy = _accuracy(top1, race, symmetric, averaged=done == 1)
        raw = _accuracy(max(0.1, top1 - 0.01), race, symmetric)
        seconds = samples / rate
        points.append(
            Point(
                step=step,
                samples=samples,
                seconds=seconds,
                joules=watts and watts * seconds,
                # A training step is three forward passes' worth.
                macs=round(3 * MACS * work * samples),
                rate=rate,
                loss=2.3 - 2 * top1,
                accuracy=raw if used.ema else accuracy,
                ema=accuracy if used.ema else None,
            )
        )
    return tuple(points)


def _accuracy(top1: float, race: RaceInfo, symmetric: bool, *, averaged: bool = False) -> Accuracy:
    """Whole images, or mIoU; a network without symmetry loses some by mirroring, and wins by TTA."""
    images = race.validation.images

    def scores(share: float) -> Scores:
        if race.measure == MIOU:
            miou = min(max(share, 0.0), 1.0)
            return Scores(top1=(1 + miou) / 2, nll=2.5 * (1 - miou) + 0.05, miou=miou)
        right = round(min(max(share, 0.0), 1.0) * images) / images
        return Scores(top1=right, top5=min(1.0, right + 0.05), nll=2.5 * (1 - right) + 0.05)

    return Accuracy(
        images=images,
        plain=scores(top1),
        mirrored=scores(top1 if symmetric else top1 - 0.02),
        flip_consistency=1.0 if symmetric else 0.93,
        averaged=scores(top1 + 0.008) if averaged and not symmetric else None,
    )
