"""Races: a pair and its rivals trained by one recipe with several seeds, in turns, by measured time."""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flopbench.errors import FlopbenchError, Interrupted, NothingMeasuredError
from flopbench.recipes import Race, RaceSuite, Recipe, Rival, load_race_suite, merged
from flopbench.results.folder import name_of
from flopbench.results.races import RacesFolder
from flopbench.results.trainings import RaceInfo, RacesInfo
from flopbench.runner.begin import RESUME_FIELDS, parse_duration
from flopbench.symmetries.registry import others
from flopbench.timing.environment import describe
from flopbench.toml import parse
from flopbench.training.data import open_data
from flopbench.training.entrants import entrants_of, pair_of, possible_rivals
from flopbench.training.heats import RaceObserver, Ready, heats_of, run
from flopbench.training.race_progress import race_progress
from flopbench.training.world import World, begun_together, visited

if TYPE_CHECKING:
    from flopbench.report.races import RaceResult


def prepare(races: Sequence[tuple[Race, Recipe]], world: World) -> list[Ready]:
    """Open the data of races, and find out who runs.

    Raises:
        FlopbenchError: a mistake in a race, its recipe or its data.
    """
    ready: list[Ready] = []
    for race, recipe in races:
        data = open_data(race.data, recipe, world)
        data.steps(recipe.batch_size)
        key = f"{pair_of(race).id}/{data.info.name}"
        alike = sum(other.info.key.partition("#")[0] == key for other in ready)
        info = RaceInfo(
            key=f"{key}#{alike + 1}" if alike else key,
            declared=race,
            recipe=recipe,
            data=data.info,
            validation=data.validation,
            entrants=entrants_of(race, recipe, len(data.classes)),
        )
        ready.append(Ready(info, data))
    return ready


def race(
    recipe: str | Path | None = None,
    pair: str | None = None,
    data: str | Path | None = None,
    *,
    suite: str | Path | RaceSuite | None = None,
    seeds: int | None = None,
    rivals: Sequence[Rival] | None = None,
    target: float | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    budget: float | str | None = None,
    results: str | Path | None = "results",
    resume: str | Path | None = None,
    progress: "bool | RaceObserver" = True,
    command: str | None = None,
) -> "RaceResult":
    """Race a pair by measured time, as `flopbench race` does: X, E(X) and rivals, by one recipe.

        result = flopbench.race("proxy-cpu", "vit_ti16.flop", "animal-shape-mnist")
        print(result)

    Everything runs in this process, one training after another. The clock stops in evaluations, and what is
    compiled is compiled before it starts. A training that diverges or runs out of memory is a result; with
    several processes (`torchrun`) it ends them all.

    Args:
        recipe: the name of a recipe, or its TOML file.
        pair: the candidate, "vit_ti16.flop", or "CANDIDATE@BASELINE".
        data: the name of a data set, or its folder.
        suite: a suite of races instead of these three: its name, its TOML file, or a `RaceSuite`.
        seeds: how many; by default three, or what the suite says. What is given here and below holds for each
            race of a suite.
        rivals: who else runs, see `training.entrants.entrants_of`; by default all that the pair can have.
        target: top-1, or mIoU of a segmentation, in per cent, whose time is told; by default what every seed
            of X reached.
        epochs: in place of the recipe's; its warm-up and the time between evaluations change with them.
        batch_size: in place of the recipe's.
        device: "cpu" or "cuda"; by default a GPU if there is one.
        threads: that a CPU computes with; by default as many as torch takes.
        budget: for all of it, in seconds or as "90s", "5m", "1.5h"; what does not fit is left for `resume`.
        results: the folder that the race's folder goes to. None: a temporary one, which lasts as long as the
            result.
        resume: the folder of a race to go on with, as it was begun; `data` may say where its data are now.
        progress: whether a line per training goes to stderr, or who watches instead.
        command: what the race records as its origin; by default this call.

    Returns:
        What came of it.

    Raises:
        FlopbenchError: a mistake in what was given, or the device is not there.
        NothingMeasuredError: no training ended well.
        Interrupted: Ctrl-C; every training that had ended is in the folder, and in `result`.
    """
    from flopbench.report.races import RaceResult

    seconds = parse_duration(budget, "budget") if isinstance(budget, str) else budget
    changes = _given(seeds=seeds, rivals=rivals, target=target, epochs=epochs, batch_size=batch_size)
    begun = None if resume is None else RacesFolder.open(Path(resume))
    if begun is not None:
        _refuse({**_given(recipe=recipe, pair=pair, suite=suite), **changes})
    with ExitStack() as stack:
        here = stack.enter_context(visited(device or (begun and begun.info.environment.device), threads))
        if begun is not None:
            folder, ready = begun, resumed(begun, here, data)
        else:
            chosen = choose(recipe, pair, data, suite, **changes)
            ready = prepare(_with_recipes(chosen), here)
            arguments = _given(recipe=recipe, pair=pair, data=data, suite=suite and chosen.name, **changes)
            called = f"flopbench.race({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
            folder = begin(chosen, ready, here, None if results is None else Path(results), command or called)
        observer = stack.enter_context(race_progress(progress if here.first else False))
        try:
            run(folder, ready, here, observer, seconds)
        except KeyboardInterrupt:
            go_on = f"flopbench.race(resume={str(folder.path)!r})"
            raise Interrupted(RaceResult(folder), f"{folder.path}: go on with {go_on}", "training") from None
        if here.first:
            _check_measured(folder)
        return RaceResult(folder)


def _with_recipes(suite: RaceSuite) -> list[tuple[Race, Recipe]]:
    return [(race, race.load_recipe()) for race in suite.races]


def planned(
    recipe: str | Path | None = None,
    pair: str | None = None,
    data: str | Path | None = None,
    *,
    suite: str | Path | RaceSuite | None = None,
    **changes: Any,
) -> list[str]:
    """The trainings in the order in which `race` runs them, a line each.

    Args:
        recipe: as in `race`, as are all others.
        pair: which.
        data: on what.
        suite: instead of these.
        changes: `seeds`, `rivals`, `target`, `epochs`, `batch_size`.

    Raises:
        FlopbenchError: as `race`.
    """
    chosen = choose(recipe, pair, data, suite, **_given(**changes))
    ready = prepare(_with_recipes(chosen), World(torch.device("cpu")))
    return [
        f"{heat.race.key}  seed {heat.seed}  {heat.entrant.key}  {heat.entrant.label}  "
        f"{heat.entrant.parameters:,} parameters  {heat.entrant.macs:,} MACs"
        for one in ready
        for heat in heats_of(one.info)
    ]


def choose(
    recipe: str | Path | None,
    pair: str | None,
    data: str | Path | None,
    suite: str | Path | RaceSuite | None,
    **changes: Any,
) -> RaceSuite:
    """The races that are asked for: one by its recipe, pair and data, or those of a suite.

    Args:
        recipe: of the one race, as are `pair` and `data`.
        pair: as in `Race`.
        data: its name or folder.
        suite: the other way.
        changes: fields of every race, or of every race's recipe, that are others.

    Raises:
        FlopbenchError: neither or both are given, or a mistake in one.
    """
    one = _given(recipe=recipe, pair=pair, data=data)
    if suite is not None:
        if one:
            raise FlopbenchError(f"a suite says what is raced: leave out {', '.join(one)}")
        chosen = suite if isinstance(suite, RaceSuite) else load_race_suite(suite)
    elif missing := [name for name in ("recipe", "pair", "data") if name not in one]:
        raise FlopbenchError(
            f"a race needs {' and '.join(missing)}: for example recipe proxy-cpu, pair vit_ti16.flop, data "
            "animal-shape-mnist; or name a suite"
        )
    else:
        declared = parse(Race, {name: str(value) for name, value in one.items()}, "race")
        if "rivals" not in changes:
            changes["rivals"] = possible_rivals(pair_of(declared), declared.load_recipe())
        on = Path(declared.data).name
        name = re.sub(r"[^\w.-]+", "-", f"race-{pair_of(declared).id}-{on}")
        chosen = RaceSuite(name=name, title=f"{pair_of(declared).label} on {on}", races=(declared,))
    return chosen.model_copy(update={"races": tuple(_changed(race, changes) for race in chosen.races)})


def _changed(race: Race, changes: Mapping[str, Any]) -> Race:
    """A race with other fields, or with a recipe of others."""
    own = {key: value for key, value in changes.items() if key in Race.model_fields}
    others = {key: value for key, value in changes.items() if key not in Race.model_fields}
    return parse(Race, {**race.model_dump(), **own, "overrides": merged(race.overrides, others)}, "race")


def begin(
    suite: RaceSuite, ready: Sequence[Ready], world: World, results: Path | None, command: str
) -> RacesFolder:
    """The folder of what is about to run; the first process makes it."""
    environment = describe(world.kind)
    created = datetime.now(UTC)
    names = [name for one in ready for name in pair_of(one.info.declared).names]
    info = RacesInfo(
        id=name_of(created, suite.name, environment.device),
        suite=suite.name,
        title=suite.title,
        command=command,
        created=created.isoformat(timespec="seconds"),
        environment=environment,
        world_size=world.size,
        races=tuple(one.info for one in ready),
        symmetries=others(name.version.about for name in names),
    )

    return begun_together(RacesFolder, world, info, results)


def resumed(folder: RacesFolder, world: World, data: str | Path | None) -> list[Ready]:
    """What a folder's races go on with.

    Args:
        folder: of races that were begun.
        world: this process.
        data: where their data are now, if that is another place than before.

    Raises:
        FlopbenchError: the machine, the data or a network is not what it was.
    """
    before = folder.info
    problems = before.environment.differences(describe(world.kind), RESUME_FIELDS)
    if before.world_size != world.size:
        problems.append(f"processes: {before.world_size} → {world.size}")
    moved = {} if data is None else {"data": str(data)}
    # The recipe is that of the record, whatever became of its file.
    races = [(race.declared.model_copy(update=moved), race.recipe) for race in before.races]
    ready = prepare(races, world)
    for was, now in zip(before.races, ready, strict=True):
        # As a record has them: lists where options have tuples.
        found = RaceInfo.model_validate_json(now.info.model_dump_json())
        parts = ("data", "validation", "entrants")
        problems += [
            f"{part} of {was.key} changed" for part in parts if getattr(was, part) != getattr(found, part)
        ]
        now.info = was
    if problems:
        raise FlopbenchError(f"cannot resume {folder.path}: {'; '.join(problems)}")
    return ready


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _refuse(given: Mapping[str, Any]) -> None:
    if given:
        raise FlopbenchError(f"a race is resumed as it was begun: leave out {', '.join(given)}")


def _check_measured(folder: RacesFolder) -> None:
    """Raise unless a training ended well.

    Raises:
        NothingMeasuredError: none did, and why.
    """
    trials = folder.trials()
    if not any(trial.status == "ok" for trial in trials):
        reasons = sorted({trial.reason for trial in trials}) or ["the budget was spent before one had ended"]
        raise NothingMeasuredError(f"no training ended well: {'; '.join(reasons)}; see {folder.path}")
