from pathlib import Path

import pytest

from flopbench.errors import FlopbenchError
from flopbench.results.folder import RunExistsError, make_under
from flopbench.results.races import RacesFolder
from tests.support.races import make_races

info, trials = make_races(("digits", "fashion-mnist"), rivals=(), seeds=2)


def test_what_was_appended_is_read_back_by_race(tmp_path: Path):
    RacesFolder.create(tmp_path / "races", info)
    folder = RacesFolder.open(tmp_path / "races")
    for trial in trials:
        folder.append(trial)
    assert folder.info == info
    assert folder.trials() == trials


def test_the_later_record_of_a_trial_counts(tmp_path: Path):
    folder = RacesFolder.create(tmp_path / "races", info)
    failed = trials[0].model_copy(update={"status": "failed", "reason": "no luck"})
    for trial in (failed, *trials):
        folder.append(trial)
    assert folder.trials() == trials


def test_a_torn_line_costs_its_own_trial(tmp_path: Path):
    folder = RacesFolder.create(tmp_path / "races", info)
    folder.append(trials[0])
    file = folder.path / "trials.jsonl"
    file.write_bytes(file.read_bytes() + b'{"schema": 2, "race": "vit')
    with pytest.warns(UserWarning, match="set aside in trials.torn"):
        folder.set_torn_lines_aside()
    folder.append(trials[1])
    assert folder.trials() == trials[:2]
    assert (folder.path / "trials.torn").read_bytes().startswith(b'{"schema": 2')


def test_one_process_runs_a_race(tmp_path: Path):
    folder = RacesFolder.create(tmp_path / "races", info)
    other = RacesFolder.open(folder.path)
    with folder.locked(), pytest.raises(FlopbenchError, match="run by another flopbench"), other.locked():
        pass


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(FlopbenchError, match=r"is not a race: it has no races\.json"):
        RacesFolder.open(tmp_path)
    RacesFolder.create(tmp_path / "races", info)
    with pytest.raises(RunExistsError, match="exists already"):
        RacesFolder.create(tmp_path / "races", info)


def test_folders_that_are_begun_within_a_second_are_numbered(tmp_path: Path):
    made = [make_under(tmp_path, "digits", lambda path: RacesFolder.create(path, info)) for _ in range(3)]
    assert [folder.path.name for folder in made] == ["digits", "digits-2", "digits-3"]
