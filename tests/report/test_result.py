"""What was measured as one object: in terminals, text and notebooks, as figures, pictures and files."""

import gc
import io
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from flopbench.errors import FlopbenchError
from flopbench.regression.decision import Change, Comparison, Outcome
from flopbench.report.result import Result
from flopbench.report.shown import Shown
from flopbench.report.table import Column, Table, words
from flopbench.results import UNRESOLVED, Flag, Run
from flopbench.runner.begin import new_run
from flopbench.suites import load_suite
from tests.support.runs import A100, CPU, environment, make_run

PNG = b"\x89PNG\r\n"


@pytest.fixture
def small(tmp_path: Path) -> Run:
    """One pair in one cell."""
    return make_run(
        tmp_path / "small",
        device=CPU,
        pairs=("vit_s16.flop",),
        batch_sizes=(4,),
        passes=("forward",),
        modes=("eager",),
    )


@pytest.fixture
def large(tmp_path: Path) -> Run:
    return make_run(tmp_path / "large", device=A100, pairs=("vit_s16.flop", "vit_b16.flop"))


class _Reader(HTMLParser):
    """The words of a page, and the tags that are open at its end."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def _printed(shown: Shown, width: int, **options: object) -> str:
    file = io.StringIO()
    Console(file=file, width=width, **options).print(shown)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def test_text_terminal_and_notebook_say_the_same(small: Run):
    result = Result([small])
    (answer,) = result.answers
    page = " ".join(_Reader(result._repr_html_()).said)
    for said in (str(result), repr(result), _printed(result, 120), page):
        flowing = " ".join(said.split())
        assert " ".join(answer.headline.split()) in flowing
        for word in ("Models", "Speed-ups", "E(ViT-S/16)", "55"):
            assert word in flowing, word
    assert len(str(result).splitlines()) < 25
    assert max(map(len, _printed(result, 60).splitlines())) <= 60


def test_text_is_as_wide_as_columns_says(small: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, str(Result([small])).splitlines())) <= 50
    monkeypatch.delenv("COLUMNS")
    assert max(map(len, str(Result([small])).splitlines())) > 120


class _Hostile(Shown):
    def shown(self) -> list[Table | str]:
        columns = (words("name"), Column("gain", tone=lambda row: "good"))
        return [Table.of("<script>", columns, [("<b>[red]\x1b[31m", 1)]), "a <i>line</i>\x1b[2J\nand on"]


def test_nothing_that_is_shown_is_obeyed():
    page = _Hostile()._repr_html_()
    reader = _Reader(page)
    assert not {"script", "b", "i"} & reader.tags
    assert reader.open == []
    assert "<b>[red]" in "".join(reader.said)
    for said in (str(_Hostile()), _printed(_Hostile(), 80), page):
        assert "\x1b" not in said
        assert "line" in said
    assert "good" in page


def test_without_a_speed_up_it_says_so_and_has_nothing_to_draw(tmp_path: Path):
    result = Result([make_run(tmp_path / "run", pairs=("vit_s16.flop",), statuses={"*": "oom"})])
    for said in (str(result), _printed(result, 100), result._repr_html_()):
        assert "No cell has a speed-up." in said
        assert "out of memory" in said
    figures = [name for name in result.pictures if not name.startswith("memory")]
    assert figures == []


def test_why_there_is_no_picture_is_said_with_what_would_help(tmp_path: Path):
    wide = Flag(kind=UNRESOLVED, message="the interval is ±90 %", remedy="a quieter machine")
    result = Result([make_run(tmp_path / "a", pairs=("vit_s16.flop",), batch_sizes=(4,), flags={"*": wide})])
    told = "no cell has a speed-up: not resolved, the interval is ±90 %; try a quieter machine$"
    with pytest.raises(FlopbenchError, match=told):
        result.plot()


def test_frame_and_records_are_all_there_is(small: Run, large: Run):
    result = Result([small, large])
    assert len(result.records) == len(result.frame()) == 1 + len(large.records())
    assert set(result.frame()["run"]) == {"small", "large"}


def test_every_picture_can_be_had_by_its_name(small: Run, large: Run):
    result = Result([small, large])
    files = {path.stem for path in result.report(small.path.parent / "reports").pictures}
    assert set(result.pictures) == files
    figure = result.plot("gain-against-macs")
    assert figure._repr_png_().startswith(PNG)
    # One axis per run, for either has a family of its own there.
    assert len(figure.axes) == 2
    with pytest.raises(FlopbenchError, match="no picture 'speed-ups'; there is side-by-side, gain"):
        result.plot("speed-ups")


def test_the_default_picture_is_of_what_was_varied(small: Run, large: Run, tmp_path: Path):
    assert Result([small]).pictures[0] == "speedups"
    assert Result([large]).pictures[0] == "speedup-against-batch"
    assert Result([small, large]).pictures[0] == "side-by-side"
    wide = make_run(
        tmp_path / "wide", pairs=("vit_s16.flop",), batch_sizes=(8,), axes={"widths": [192, 384, 768]}
    )
    assert Result([wide]).pictures[0] == "speedup-against-width"
    Result([small]).plot().savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)


def test_a_run_saved_is_a_run_again(small: Run, large: Run, tmp_path: Path):
    saved = Result([small]).save(tmp_path / "kept" / "one")
    assert Run.open(saved).records() == small.records()
    both = Result([small, large]).save(tmp_path / "both")
    assert sorted(path.name for path in both.iterdir()) == ["large", "small"]
    with pytest.raises(FlopbenchError, match="both exists already: name a new folder"):
        Result([small]).save(both)


def test_runs_must_differ(small: Run):
    with pytest.raises(FlopbenchError, match="must differ"):
        Result([small, Run.open(small.path)])
    with pytest.raises(FlopbenchError, match="at least one run"):
        Result([])


def test_a_temporary_run_is_there_as_long_as_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    suite = load_suite("vit")
    result = Result([new_run(suite, suite.profile("cpu"), environment(CPU), None, command="k")])
    assert (result.runs[0].path / "run.json").is_file()
    saved = result.save(tmp_path / "saved")
    del result
    gc.collect()
    assert os.listdir(tmp_path) == [saved.name]


def test_a_comparison_shows_itself_alike():
    change = Change(subject="a/b8", metric="macs", base=1.0, new=2.0, outcome=Outcome.FAIL, note="<twice>")
    comparison = Comparison(base="before", new="after", changes=(change,), notes=("of two files",))
    for said in (str(comparison), _printed(comparison, 100), "".join(_Reader(comparison._repr_html_()).said)):
        for word in ("a/b8", "macs", "<twice>", "of two files", "FAIL: before → after: 1 fail"):
            assert word in said, word
