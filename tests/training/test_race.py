from pathlib import Path
from typing import Any

import pytest
import torch

import flopbench
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.kernels import Ran
from flopbench.recipes import Race
from flopbench.report.races import RaceResult
from flopbench.results.races import RacesFolder
from flopbench.training import heats
from flopbench.training import race as racing
from flopbench.training.world import World
from tests.support.training import Noise

RECIPE = """
title = "for tests"
epochs = 2
batch_size = 8
image_size = 8
ema = 0.9
optimiser = { name = "adamw", learning_rate = 1e-2 }
schedule = { warmup_epochs = 1 }
augmentation = { mirror = 0.0 }
evaluation = { every_epochs = 1 }
options."vit_ti16*" = { patch_size = 4, width = 16, depth = 2, heads = 2 }
"""


@pytest.fixture(autouse=True)
def noise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(racing, "open_data", lambda name, recipe, world: Noise(world))
    Path("tiny.toml").write_text(RECIPE)


def raced(**arguments: Any) -> RaceResult:
    settings = {"rivals": (), "seeds": 2, "threads": 1, "progress": False, **arguments}
    return flopbench.race("tiny.toml", "vit_ti16.flop", "noise", **settings)


def resumed(folder: RacesFolder, progress: Any = False, **arguments: Any) -> RaceResult:
    return flopbench.race(resume=folder.path, threads=1, progress=progress, **arguments)


class Watching:
    """Notes what it is told, and interrupts when so many trainings have ended."""

    def __init__(self, ends: int = 1000) -> None:
        self.ends, self.told = ends, list[Any]()

    def begin(self, folder: RacesFolder, left: Any, ended: int) -> None:
        self.told.append(("begin", len(left), ended))

    def heat(self, heat: heats.Heat) -> None:
        if self.ends == 0:
            raise KeyboardInterrupt
        self.told.append(("heat", heat.entrant.key, heat.seed))

    def step(self, step: int, steps: int, loss: float) -> None:
        self.told.append(("step", step, steps))

    def point(self, point: Any) -> None:
        self.told.append(("point", point.step))

    def finished(self, heat: heats.Heat, trial: Any) -> None:
        self.ends -= 1
        self.told.append(("finished", trial.status))


def test_entrants_take_turns_and_every_evaluation_is_a_point():
    (folder,) = raced(rivals=("mirror",)).folders
    trials = folder.trials()
    assert [(trial.entrant, trial.seed, trial.place) for trial in trials] == [
        ("baseline", 0, 0),
        ("candidate", 0, 1),
        ("mirror", 0, 2),
        ("mirror", 1, 3),
        ("candidate", 1, 4),
        ("baseline", 1, 5),
    ]
    for trial in trials:
        assert trial.status == "ok"
        assert [(point.step, point.samples) for point in trial.points] == [(3, 24), (6, 48)]
        assert trial.points[0].seconds < trial.points[1].seconds <= trial.wall_seconds
        assert trial.compile_seconds is not None
        assert all(point.ema and point.loss and point.rate for point in trial.points)
        assert trial.inference
        assert trial.inference.images == 8
        # Test-time augmentation changes nothing for what is invariant.
        assert [point.best.averaged is None for point in trial.points] == [trial.entrant == "candidate"] * 2
    # Each seed has its own weights and order of images.
    assert len({trial.points[0].loss for trial in trials}) == len(trials)
    entrant = folder.info.races[0].entrant("candidate")
    assert entrant
    assert 48 * 2 * entrant.macs < trials[1].points[1].macs <= 48 * 3 * entrant.macs
    assert trials[1].points[1].best.flip_consistency == 1


def test_every_training_begins_with_fresh_weights():
    (folder,) = raced().folders
    (info,) = folder.info.races
    ready = heats.Ready(info, Noise())
    entrant = info.entrants[0]
    cpu = torch.device("cpu")
    network = ready.network(entrant, 0, cpu)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert ready.network(entrant, 1, cpu) is network
    size = info.recipe, len(Noise.classes)
    fresh = heats.build(entrant.name, entrant.options, *size, 1).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in network.state_dict().items())


def test_what_had_ended_is_kept_and_the_race_goes_on_with_the_next():
    with pytest.raises(flopbench.Interrupted, match="every finished training is in") as interrupted:
        raced(progress=Watching(ends=2))
    (folder,) = interrupted.value.result.folders
    before = folder.trials()
    assert [trial.entrant for trial in before] == ["baseline", "candidate"]
    watching = Watching()
    (whole,) = resumed(folder, progress=watching).folders
    assert watching.told[0] == ("begin", 2, 2)
    assert whole.trials()[:2] == before
    (uninterrupted,) = raced().folders
    assert [trial.id for trial in whole.trials()] == [trial.id for trial in uninterrupted.trials()]
    for one, other in zip(whole.trials(), uninterrupted.trials(), strict=True):
        assert [(p.loss, p.accuracy, p.ema) for p in one.points] == [
            (p.loss, p.accuracy, p.ema) for p in other.points
        ]


def test_the_recipe_of_a_race_that_goes_on_is_that_of_its_record():
    with pytest.raises(flopbench.Interrupted) as interrupted:
        raced(progress=Watching(ends=3))
    Path("tiny.toml").unlink()
    (folder,) = resumed(interrupted.value.result.folders[0]).folders
    assert len(folder.trials()) == 4


def test_a_race_goes_on_only_as_what_it_was(monkeypatch: pytest.MonkeyPatch):
    (folder,) = raced(seeds=1).folders
    with pytest.raises(FlopbenchError, match="as it was begun: leave out epochs"):
        resumed(folder, epochs=3)
    here = folder.info.environment
    other = Noise()
    other.info = other.info.model_copy(update={"digest": "0123456789ab"})
    monkeypatch.setattr(racing, "open_data", lambda name, recipe, world: other)
    monkeypatch.setattr(racing, "describe", lambda kind: here.model_copy(update={"threads": 64}))
    with pytest.raises(FlopbenchError, match=r"threads: 1 → 64; data of vit_ti16\.flop/noise changed$"):
        resumed(folder)


def test_a_training_that_fails_is_a_result(monkeypatch: pytest.MonkeyPatch):
    build = heats.build

    def weak(name: str, options: Any, recipe: Any, classes: int, seed: int) -> Any:
        model = build(name, options, recipe, classes, seed)
        if name.endswith(".flop") and seed == 0:
            torch.nn.init.constant_(model.get_parameter("head.weight"), torch.nan)
        if name.endswith(".flop") and seed == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return model

    monkeypatch.setattr(heats, "build", weak)
    (folder,) = raced().folders
    assert [(trial.entrant, trial.status) for trial in folder.trials()] == [
        ("baseline", "ok"),
        ("candidate", "failed"),
        ("candidate", "oom"),
        ("baseline", "ok"),
    ]
    assert [trial.inference is None for trial in folder.trials()] == [False, True, True, False]
    assert "nan at step 1" in folder.trials()[1].reason
    assert "Tried to allocate 1 GiB" in folder.trials()[2].reason


def test_a_race_in_which_nothing_ends_well_measured_nothing():
    Path("tiny.toml").write_text(RECIPE.replace("1e-2", "1e30"))
    with pytest.raises(NothingMeasuredError, match=r"no training ended well: .*lower optimiser"):
        raced(seeds=1)


def test_a_budget_ends_a_race_between_two_trainings():
    with pytest.raises(NothingMeasuredError, match="the budget was spent"):
        raced(budget=1e-9)


def test_networks_are_compiled_once_and_their_kernels_seen_once(monkeypatch: pytest.MonkeyPatch):
    networks: list[Any] = []
    trainer = heats.Trainer

    def noted(recipe: Any, network: Any, *arguments: Any, **options: Any) -> Any:
        networks.append(network)
        return trainer(recipe, network, *arguments, **options)

    monkeypatch.setattr(heats, "Trainer", noted)
    (folder,) = raced(rivals=("mirror", "half-depth")).folders
    baseline, candidate, mirror, shallow = networks[:4]
    assert mirror is baseline
    assert networks[4:] == [shallow, mirror, candidate, baseline]
    seen = {trial.entrant: trial.implementations for trial in folder.trials()[:4]}
    assert seen["candidate"]
    assert all(trial.implementations == seen[trial.entrant] for trial in folder.trials()[4:])


def test_who_has_the_blocks_of_another_runs_what_was_compiled_for_that():
    overrides = {"mode": "compile-blocks", "options": {"vit_ti16*": {"depth": 4}}}
    race = Race(
        recipe="tiny.toml",
        pair="vit_ti16.flop",
        data="noise",
        rivals=("wide", "half-depth"),
        overrides=overrides,
    )
    here = World(torch.device("cpu"))
    (ready,) = racing.prepare([(race, race.load_recipe())], here)
    seen: dict[str, Ran] = {"baseline": {"linear": {"cpp": ""}}, "candidate": {"gelu": {"cpp": ""}}}
    ran = {
        one.key: ready.ran(one, ready.network(one, 0, here.device), seen.get(one.key, {}))
        for one in ready.info.entrants
    }
    assert ran == {**seen, "wide": {}, "half-depth": seen["baseline"]}


def test_what_a_recipe_counts_in_epochs_changes_with_them():
    (folder,) = raced(epochs=4, seeds=1).folders
    (race,) = folder.info.races
    assert (race.recipe.epochs, race.recipe.schedule.warmup_epochs) == (4, 2)
    assert [point.step for point in folder.trials()[0].points] == [6, 12]


def test_what_will_run_is_told_beforehand():
    lines = racing.planned("tiny.toml", "vit_ti16.flop", "noise", seeds=2, rivals=())
    assert [line.split("  ")[:3] for line in lines] == [
        ["vit_ti16.flop/noise", f"seed {seed}", key]
        for seed, key in [(0, "baseline"), (0, "candidate"), (1, "candidate"), (1, "baseline")]
    ]
    assert len(racing.planned("tiny.toml", "vit_ti16.flop", "noise", seeds=1)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a race needs recipe and pair and data"),
        ({"suite": "mine.toml", "pair": "vit_ti16.flop"}, "a suite says what is raced: leave out pair"),
        ({"suite": "vit"}, r"vit\.toml is no suite of races: flopbench run --suite vit runs it"),
        ({"suite": "race-smal"}, "unknown suite 'race-smal'"),
    ],
)
def test_what_is_asked_for_is_complete(arguments: dict[str, Any], message: str):
    with pytest.raises(FlopbenchError, match=message):
        flopbench.race(**arguments)
