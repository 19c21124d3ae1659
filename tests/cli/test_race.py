from pathlib import Path
from typing import Any

import pytest

import flopbench
from flopbench.cli import main
from flopbench.recipes import load_race_suite
from flopbench.report.races import RaceResult
from flopbench.suites import available_race_suites, available_suites
from flopbench.training import race as racing
from tests.support.races import make_races, write_races


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["flopbench", *words])
    with pytest.raises(SystemExit) as left:
        main()
    code = left.value.code or 0
    assert isinstance(code, int)
    return code


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What `race` was called with, which gives a race that was run before."""
    calls: list[dict[str, Any]] = []
    folder = write_races(tmp_path / "races-cpu", *make_races(("digits",), rivals=(), seeds=2))

    def noted(**arguments: Any) -> RaceResult:
        calls.append(arguments)
        return RaceResult.open(folder)

    monkeypatch.setattr(racing, "race", noted)
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_race_is_run_and_reported(
    asked: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    words = ["race", "proxy-cpu", "--pair", "vit_ti16.flop", "--data", "digits", "--seeds", "2"]
    assert run(monkeypatch, *words, "--rival", "wide", "--rival", "mirror", "--epochs", "0.5") == 0
    (call,) = asked
    assert (call["recipe"], call["pair"], call["data"], call["seeds"]) == (
        "proxy-cpu",
        "vit_ti16.flop",
        "digits",
        2,
    )
    assert (call["rivals"], call["epochs"]) == (("wide", "mirror"), 0.5)
    assert call["command"].startswith("flopbench race proxy-cpu")
    assert "raw data:" in capsys.readouterr().out
    assert list((tmp_path / "reports").glob("*/report.html"))


def test_by_default_all_rivals_run_and_none_if_asked(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    assert run(monkeypatch, "race", "--suite", "race-small") == 0
    assert run(monkeypatch, "race", "--suite", "race-small", "--no-rivals") == 0
    assert [call["rivals"] for call in asked] == [None, ()]


def test_an_interrupted_race_says_how_it_goes_on(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(**arguments: Any) -> RaceResult:
        raise flopbench.Interrupted(RaceResult.open("races-cpu"), "races-cpu", "training")

    monkeypatch.setattr(racing, "race", interrupted)
    assert run(monkeypatch, "race", "--suite", "race-small") == 130
    assert "continue with: flopbench race --resume races-cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["race"], "a race needs recipe and pair and data"),
        (
            ["race", "proxy-cpu", "--pair", "vit_ti16.flop", "--rival", "wide", "--no-rivals"],
            "exclude one another",
        ),
        (["race", "--suite", "vit"], "vit.toml is no suite of races: flopbench run --suite vit runs it"),
        (["race", "--resume", "gone", "--dry-run"], "leave out --dry-run"),
        (["race", "--resume", "gone"], "gone is not a race: it has no races.json"),
        (
            ["race", "proxy-cpu", "--pair", "vit_ti16.flop", "--data", "digits", "--rival", "wider"],
            "race: rivals[0]: input should be 'mirror', 'wide', 'half-width' or 'half-depth', got 'wider'",
        ),
        *(
            (
                [*words, "--suite", "race-small"],
                "is a suite of races: flopbench race --suite race-small runs it",
            )
            for words in (["run"], ["gate"], ["verify"], ["calibrate"])
        ),
    ],
)
def test_wrong_input_is_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_suites_of_races_are_listed_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert not available_suites().keys() & available_race_suites().keys()
    assert run(monkeypatch, "list", "suites") == 0
    listed = capsys.readouterr().out
    assert "race-small" in listed.partition("Races")[2]
    assert "E(ResMLP-T12) on animal-shape-mnist, fashion-mnist" in " ".join(listed.split())


def test_what_ships_is_right():
    for name in available_race_suites():
        for race in load_race_suite(name).races:
            assert race.load_recipe().evaluation.images is not None
