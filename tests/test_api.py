"""Suites run, read and compared from Python, with workers that are not there."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flopbench
from flopbench import api
from flopbench.axis_values import AxisValues
from flopbench.cells import AXES
from flopbench.errors import FlopbenchError
from flopbench.results import Run
from flopbench.runner import begin, sweep
from flopbench.suites import Suite, parse_suite
from tests.support.networks import LARGE, SMALL
from tests.support.runs import CPU, environment, make_run


@pytest.fixture
def suite() -> Suite:
    raw: dict[str, Any] = {
        "title": "Small networks",
        "pairs": [f"{SMALL}@{LARGE}"],
        "profiles": {
            "cpu": {
                "batch_sizes": [1, 2],
                "passes": ["forward"],
                "modes": ["eager"],
                "image_sizes": [32],
                "cell_seconds": 0.2,
                "quick": {"batch_sizes": [1]},
            }
        },
    }
    return parse_suite(raw, name="small", where="small.toml")


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that were begun; nothing is measured, and the machine is a synthetic one."""
    runs: list[Run] = []
    monkeypatch.setattr(begin, "probe_environment", lambda device, launch: environment(CPU))
    monkeypatch.setattr(sweep, "sweep", lambda run, observer, launch: runs.append(run))
    return runs


def test_a_suite_is_measured_and_shows_itself(suite: Suite, tmp_path: Path, capsys):
    result = flopbench.run_suite(suite, device="cpu", variant="quick", results=tmp_path)
    (record,) = result.records
    assert (record.status, record.cell.batch_size) == ("ok", 1)
    assert result.runs[0].path.parent == tmp_path
    assert "[1/1]" in capsys.readouterr().err
    assert "1/1" not in str(result)
    assert SMALL in str(result)
    command = "flopbench.run_suite('small', device='cpu', variant='quick')"
    assert result.runs[0].info.command == command


def test_what_is_given_replaces_what_the_suite_says(suite: Suite, swept: list[Run], tmp_path: Path):
    flopbench.run_suite(
        suite,
        batch_sizes=[8, 16],
        dtypes="fp32",
        budget="5m",
        replicates=2,
        shard=(2, 2),
        results=tmp_path,
        progress=False,
    )
    (run,) = swept
    profile = run.info.profile
    assert (profile.batch_sizes, profile.replicates, profile.budget_seconds) == ((8, 16), 2, 300)  # pyright: ignore[reportAttributeAccessIssue]
    assert run.info.shard == (2, 2)
    assert "batch_sizes=[8, 16]" in run.info.command


def test_without_a_folder_a_run_is_temporary(suite: Suite, swept: list[Run], tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = flopbench.run_suite(suite, results=None, progress=False)
    assert result.runs[0].path.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"suite": "vitt"}, "unknown suite 'vitt'; did you mean vit"),
        ({"device": "tpu"}, "device 'tpu': choose cpu or cuda"),
        ({"batch_size": 4}, "unknown key 'batch_size'; did you mean batch_sizes"),
        ({"batch_sizes": [0]}, "greater than or equal to 1, got 0"),
        ({"budget": "soon"}, "budget 'soon' is not a duration; write 90s, 5m or 1.5h"),
        ({"threads": 0}, "threads 0: this machine has"),
        ({"variant": "full", "device": "cpu"}, "has no full profile for cpu"),
        ({"resume": "absent"}, "absent is not a run: it has no run.json"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    given: dict[str, Any], message: str, suite: Suite, swept: list[Run], tmp_path: Path
):
    arguments: dict[str, Any] = {"suite": suite, "results": tmp_path / "results", **given}
    with pytest.raises(FlopbenchError, match=re.escape(message)) as error:
        flopbench.run_suite(**arguments)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == swept == []


def test_a_run_is_resumed_as_it_was_begun(suite: Suite, swept: list[Run], tmp_path: Path):
    begun = flopbench.run_suite(suite, results=tmp_path, progress=False).runs[0]
    resumed = flopbench.run_suite(resume=begun.path, progress=False)
    assert resumed.runs[0].info == begun.info
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FlopbenchError, match="as it was begun: leave out batch_sizes, variant"):
        flopbench.run_suite(resume=begun.path, batch_sizes=4, variant="quick")
    with pytest.raises(FlopbenchError, match="cannot resume"):
        flopbench.run_suite("vit", resume=begun.path)


def test_an_interrupt_brings_what_was_measured(suite: Suite, swept: list[Run], tmp_path, monkeypatch):
    def interrupted(run: Run, observer: object, launch: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "sweep", interrupted)
    with pytest.raises(
        api.Interrupted, match=r"go on with flopbench.run_suite\(resume='.*small-cpu"
    ) as error:
        flopbench.run_suite(suite, results=tmp_path, progress=False)
    assert error.value.result.runs[0].path.parent == tmp_path


def test_runs_are_opened_alone_and_by_the_folder(tmp_path: Path):
    for name in ("a", "b"):
        make_run(tmp_path / name, device=CPU, pairs=("vit_s16.flop",), batch_sizes=(1,))
    (tmp_path / "other").mkdir()
    assert [run.info.id for run in flopbench.load_run(tmp_path / "b").runs] == ["b"]
    assert [run.info.id for run in flopbench.load_run(str(tmp_path)).runs] == ["a", "b"]
    with pytest.raises(FlopbenchError, match="other is not a run"):
        flopbench.load_run(tmp_path / "other")


def test_runs_are_compared_however_they_are_given(tmp_path: Path):
    options: dict[str, Any] = {
        "device": CPU,
        "pairs": ("vit_s16.flop",),
        "batch_sizes": (1,),
        "replicates": 3,
    }
    base = make_run(tmp_path / "base", **options)
    new = make_run(tmp_path / "new", seed=1, slowdown=1.5, **options)
    by_path = flopbench.compare_runs(base.path, str(new.path), metrics=["speedup"])
    assert by_path == flopbench.compare_runs(base, flopbench.load_run(new.path), metrics=["speedup"])
    assert by_path.outcome == "fail"
    assert "FAIL: " in str(by_path)
    with pytest.raises(FlopbenchError, match="one run is compared with one, got 2"):
        flopbench.compare_runs(base, flopbench.Result([base, new]))


def test_every_axis_can_be_given():
    assert AxisValues.__annotations__.keys() == {axis.plural for axis in AXES.values()}


def test_importing_is_light_and_the_names_are_functions():
    code = (
        "import flopbench, sys\n"
        "flopbench.run_suite, flopbench.load_run, flopbench.compare_runs, flopbench.Result\n"
        "print(sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))\n"
        "import flopbench.cli, pkgutil, importlib\n"
        "print(set(flopbench.__all__) & {m.name for m in pkgutil.iter_modules(flopbench.__path__)})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "set()"], done.stderr
