"""Whatever was measured is opened by what its folder holds."""

import pytest

from flopbench import load
from flopbench.errors import FlopbenchError
from flopbench.report.evaluations import Evaluations
from flopbench.report.result import Result
from tests.support.evaluations import make_evaluation, write_evaluation
from tests.support.races import make_races, write_races
from tests.support.runs import CPU, make_run


@pytest.fixture
def folders(tmp_path):
    """A folder of each kind."""
    run = make_run(tmp_path / "run", device=CPU, pairs=("vit_s16.flop",), batch_sizes=(1,), modes=("eager",))
    race = make_races(("digits",), rivals=(), seeds=2)
    return {
        "run": run.path,
        "evaluation": write_evaluation(tmp_path / "evaluation", make_evaluation("vit_s16")),
        "race": write_races(tmp_path / "race", *race),
    }


def test_every_kind_is_told_by_its_file(folders):
    assert isinstance(load(folders["run"]), Result)
    assert isinstance(load(folders["evaluation"]), Evaluations)
    assert type(load(folders["race"])).__name__ == "RaceResult"


def test_a_folder_of_folders_stands_for_them(tmp_path):
    for name in ("vit_s16", "vit_s16.flop"):
        write_evaluation(tmp_path / "both" / name, make_evaluation(name))
    both = load(str(tmp_path / "both"))
    assert isinstance(both, Evaluations)
    assert [record.name for record in both.records] == ["vit_s16", "vit_s16.flop"]


def test_kinds_are_not_mixed(folders):
    with pytest.raises(FlopbenchError) as refused:
        load(folders["run"], folders["race"], folders["run"])
    said = str(refused.value)
    assert f"{folders['run']} is a run and {folders['race']} is a race: give one kind at a time" in said
    assert "\n" not in said


def test_what_holds_nothing_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(FlopbenchError, match=f"{path.name} holds nothing that was measured"):
            load(path)
    with pytest.raises(FlopbenchError, match="name at least one folder"):
        load()
