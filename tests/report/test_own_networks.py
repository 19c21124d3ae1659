"""Reports of pairs that are nobody's but the user's: no symmetry, no images, and MACs as far as they go."""

import re
import warnings

import pytest

from flopbench.report.cells import measured, rows_of
from flopbench.report.findings import answer
from flopbench.report.pictures import draw, of_runs
from flopbench.report.pictures.batch import _unit as memory_unit
from flopbench.report.pictures.style import style
from flopbench.report.result import Result
from flopbench.report.tables import CELL_COLUMNS, run_tables, runs_markdown, runs_table
from flopbench.report.text import shortened
from flopbench.results import to_frame
from tests.support.runs import CPU, make_run

BIG, SMALL = "python:big", "python:small"
TOKENS = {"baseline": BIG, "candidate": SMALL, "inputs": "python:inputs"}
COUNTED = {BIG: {"macs": 10_000_000}, SMALL: {"macs": 4_000_000}}
LEFT_OUT = {SMALL: {"macs": 4_000_000, "uncounted_operators": {"aten::fft_rfft": 12}}}


def own_run(tmp_path, *, pair=None, models=None, **settings):
    quick = {"batch_sizes": (4,), "passes": ("forward",), "modes": ("eager",), **settings}
    models = {**COUNTED, **(models or {})}
    return make_run(tmp_path / "run", device=CPU, pairs=(pair or TOKENS,), models=models, **quick)


def said(run):
    rows = rows_of(to_frame([run]))
    found = answer(run.info.id, "CPU", measured(rows), len(rows))
    return " ".join((found.headline, *found.best, *found.points))


@pytest.mark.parametrize(
    ("slowdown", "words"),
    [
        (0.4, "small needs 40 % of the MACs of big and runs 1."),
        (1.0, "small needs 40 % of the MACs of big and is"),
        (3.0, "of big and is slower: it runs 0.25"),
    ],
)
def test_two_networks_are_compared_without_a_word_of_symmetry(tmp_path, slowdown, words):
    text = said(own_run(tmp_path, slowdown=slowdown, overhead=0.0))
    assert words in text
    assert not re.search("symmetr|equivarian|mirror|kernels|operations|image", text)


def test_a_candidate_with_more_macs_promises_nothing(tmp_path):
    more = {SMALL: {"macs": 12_000_000}}
    text = said(own_run(tmp_path, models=more, slowdown=0.5, overhead=0.0))
    assert "small needs 120 % of the MACs of big and runs 1." in text
    assert "promise" not in text


@pytest.mark.parametrize(
    ("macs", "why"),
    [
        (None, "The MACs of small could not be counted, so nothing is promised."),
        (0, "small has no matrix product or convolution, so no MACs to promise anything."),
    ],
)
def test_without_macs_there_is_no_ratio_and_it_is_said_why(tmp_path, macs, why):
    run = own_run(tmp_path, models={SMALL: {"macs": macs}})
    text = said(run)
    assert why in text
    assert "of the MACs" not in text
    files = Result([run]).report(tmp_path / "reports")
    assert why in files.markdown.read_text(encoding="utf-8")
    assert "MACs ratio" not in "".join(
        p.read_text(encoding="utf-8") for p in files.pictures if p.suffix == ".svg"
    )


def test_what_operators_were_left_out_of_is_marked_wherever_it_stands(tmp_path):
    run = own_run(tmp_path, models=LEFT_OUT, slowdown=0.5, overhead=0.0, batch_sizes=(1, 4))
    files = Result([run]).report(tmp_path / "reports")
    markdown, page = (path.read_text(encoding="utf-8") for path in (files.markdown, files.html))
    for text in (markdown, page):
        assert "aten::fft" in text.replace("\\", "")
        assert "needs ≈40 % of the MACs of big" in text
        assert re.search(r"≈\d+ % of what the MACs promise", text)
        assert "rests on the MACs of small, which leave out aten::fft_rfft (12)." in text.replace("\\", "")
        assert re.search(r"≥4\.00\sM", text)
        assert re.search(r"10\.0\sM", text)
        assert "≥10.0" not in text
        # No figure that rests on it goes without.
        assert not re.search(r"(?<![≈\d.])2\.50", re.sub("<svg.*?</svg>", "", text, flags=re.DOTALL))
    svgs = [path.read_text(encoding="utf-8") for path in files.pictures if path.suffix == ".svg"]
    assert any("MACs ratio ≈2.50" in svg for svg in svgs)
    (_, row) = rows_of(to_frame([run]))
    assert (row["baseline_uncounted"], row["candidate_uncounted"]) == ("", "aten::fft_rfft (12)")
    assert "≈2.50" in runs_markdown(measured(rows_of(to_frame([run]))))


def test_what_was_counted_in_full_has_no_mark(tmp_path):
    rows = rows_of(to_frame([own_run(tmp_path)]))
    tables = run_tables(rows, measured(rows))
    assert not re.search("[≈≥]", "".join(table.markdown() for table in tables))


def test_throughput_is_of_samples_unless_all_rows_take_images(tmp_path):
    own = rows_of(to_frame([own_run(tmp_path, watts=(60.0, 50.0))]))
    images = rows_of(to_frame([own_run(tmp_path / "b", pair={"baseline": BIG, "candidate": SMALL})]))

    def heads(rows):
        table = runs_table("", measured(rows), CELL_COLUMNS)
        return " ".join(column.name for column in table.shown)

    assert "samples/s baseline" in heads(own)
    assert "samples/s/W candidate" in heads(own)
    assert "images" not in heads(own)
    assert "images/s baseline" in heads(images)
    assert "images" not in heads(own + images)
    assert "called with" in heads(own + images)
    assert "called with" not in heads(images)


def test_what_they_are_called_with_is_shown_and_no_size_of_image(tmp_path):
    run = own_run(tmp_path)
    rows = rows_of(to_frame([run]))
    models, cells = run_tables(rows, measured(rows))
    assert "224" not in models.markdown() + cells.markdown()
    assert "int64 \\[4, 16\\], mask: bool \\[4, 16\\]" in cells.markdown()


STRANGE = "a|b <b>*bold*</b> `x` [link](http://x) 😀 " + "long " * 32


def test_names_are_shown_as_they_are(tmp_path):
    pair = {**TOKENS, "candidate": f"python:{STRANGE}"}
    models = {f"python:{STRANGE}": {"macs": 4_000_000}}
    run = own_run(tmp_path, pair=pair, models=models, batch_sizes=(1, 4), passes=("forward", "backward"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = Result([run]).report(tmp_path / "reports")
    page, markdown = (path.read_text(encoding="utf-8") for path in (files.html, files.markdown))
    assert "<b>*bold*" not in page
    assert "a|b &lt;b&gt;*bold*&lt;/b&gt; `x` [link](http://x) 😀 long" in page
    assert "a\\|b \\<b\\>\\*bold\\*" in markdown
    assert "python:" not in re.sub(r"<code>.*?</code>", "", page)
    # Both ends of it, and no more than a picture has room for.
    svgs = [path.read_text(encoding="utf-8") for path in files.pictures if path.suffix == ".svg"]
    assert svgs
    assert not any("long long long long long long long" in svg.partition("<g")[2] for svg in svgs)


def test_a_name_is_cut_in_the_middle():
    assert shortened("small") == "small"
    assert shortened("a" * 20 + "b" * 20, 9) == "aaaaa…bbb"
    assert len(shortened(STRANGE)) == 32


def test_warnings_of_letters_that_a_font_lacks_are_nobodys_business():
    with warnings.catch_warnings(record=True) as caught, style():
        warnings.warn("Glyph 128512 missing from font(s) DejaVu Sans.", UserWarning, stacklevel=1)
    assert not caught


def test_that_the_candidate_is_slower_in_every_pass_is_said_once(tmp_path):
    text = said(own_run(tmp_path, slowdown=3.0, overhead=0.0, passes=("forward", "train")))
    assert re.search(r"is slower: it runs 0\.\d+× as fast \([^)]*\) forward at batch 4, and runs 0\.", text)
    assert text.count("is slower") == 1


def test_marks_stand_at_the_figures(tmp_path):
    second = "python:second"
    pairs = (TOKENS, {**TOKENS, "candidate": second})
    models = {**COUNTED, **LEFT_OUT, second: {"macs": 2_000_000}}
    run = make_run(
        tmp_path / "run", device=CPU, pairs=pairs, models=models, batch_sizes=(4,), passes=("forward",)
    )
    assert "with between ≈20 % and ≈40 % of the MACs" in said(run)


def test_a_baseline_that_all_are_compared_with_is_named_once(tmp_path):
    run = own_run(tmp_path)
    rows = rows_of(to_frame([run]))
    models, cells = run_tables(rows, measured(rows))
    assert "| big |" in models.markdown()
    assert "big" not in cells.markdown()
    # Which stands alone there.
    assert "| big |" in runs_markdown(measured(rows_of(to_frame([run]))))


@pytest.mark.parametrize(
    ("macs", "written"), [(6_780, "(10³)"), (720_000_000, "(10⁹)"), (9_000_000, "(10⁶)")]
)
def test_pictures_of_small_networks_have_small_units(tmp_path, macs, written):
    run = own_run(tmp_path, models={BIG: {"macs": macs}})
    (gain,) = (
        one
        for one in draw(lambda: of_runs([run], rows_of(to_frame([run]))))
        if one.name == "gain-against-macs"
    )
    assert gain.figure.axes[0].get_xlabel() == f"MACs of the baseline, one sample {written}"


@pytest.mark.parametrize(
    ("top", "unit"), [(40 * 2**30, "GiB"), (0.2 * 2**30, "GiB"), (9e6, "MiB"), (2e4, "KiB"), (8, "KiB")]
)
def test_memory_is_in_the_unit_that_suits_it(top, unit):
    assert memory_unit(top)[1] == unit
