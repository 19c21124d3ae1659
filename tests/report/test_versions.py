"""Reports of many versions of one network: each against its plain twin, and one against another."""

import pytest

from flopbench.report.cells import measured, models, rows_of
from flopbench.report.findings import answer
from flopbench.report.pictures import draw, of_runs
from flopbench.report.tables import run_tables, runs_markdown
from flopbench.results import to_frame
from tests.support.runs import CPU, make_run

VERSIONS = ("flop", "hybrid", "early_invariant", "octic", "octic_hybrid", "octic_early_invariant")
PAIRS = (
    *(f"{size}.{version}" for size in ("vit_s16", "vit_b16") for version in VERSIONS),
    "vit_b16.octic@vit_b16.flop",
    "vit_b16.octic_hybrid@vit_b16.hybrid",
)
OVER = "D8(ViT-B/16) against E(ViT-B/16)"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("versions") / "run"
    return make_run(path, device=CPU, pairs=PAIRS, batch_sizes=(8,), passes=("forward",), modes=("compile",))


@pytest.fixture(scope="module")
def rows(run):
    return rows_of(to_frame([run]))


def test_a_pair_that_is_against_another_baseline_says_so(rows):
    assert [row["pair_label"] for row in rows if row["candidate_label"] == "D8(ViT-B/16)"] == [
        "D8(ViT-B/16)",
        OVER,
    ]


def test_no_two_rows_of_a_table_are_called_alike(run, rows):
    _, cells, *_ = run_tables(rows, measured(rows))
    named = [line.split("|")[1].strip() for line in cells.markdown().splitlines() if "ViT" in line]
    assert len(set(named)) == len(named) == len(PAIRS)
    for table in (cells.markdown(), runs_markdown(measured(rows_of(to_frame([run]))))):
        # The candidates say what their baselines are.
        assert "| baseline |" not in table.replace("<br>", " ")


def test_a_models_ratio_is_over_its_plain_twin(rows):
    ratios = {row["pair_label"]: row["macs_ratio"] for row in rows}
    shown = {model["label"]: model["macs_ratio"] for model in models(rows)}
    assert shown["D8(ViT-B/16)"] == ratios["D8(ViT-B/16)"] != ratios[OVER]
    assert shown["E(ViT-B/16)"] == ratios["E(ViT-B/16)"]
    assert shown["ViT-B/16"] is None


def test_the_answer_tells_both_pairs_apart(run, rows):
    found = answer(run.info.id, "CPU", measured(rows), len(rows))
    said = [point.partition(" runs ")[0] for point in found.points if point.startswith("D8(ViT-B/16) needs")]
    assert len(said) == 2
    assert "of the MACs of ViT-B/16" in said[0]
    assert "of the MACs of E(ViT-B/16)" in said[1]


def test_pictures_have_a_place_per_pair(run, rows):
    pictures = {one.name: one.figure for one in draw(lambda: of_runs([run], rows))}
    for name in ("realised-share", "speedups"):
        (axis,) = pictures[name].axes
        places = [label.get_text() for label in axis.get_yticklabels()]
        assert len(set(places)) == len(places) == len(PAIRS)
    (axis,) = pictures["gain-against-macs"].axes
    names = [text.get_text() for text in axis.texts]
    assert "E(ViT), published" in names
    assert {"D8(ViT-B/16)", OVER, "I8(ViT-B/16)"} <= set(names)
    styles = [(line.get_marker(), line.get_color(), line.get_markerfacecolor()) for line in axis.lines[1:]]
    drawn = [style for style in styles if style[0] not in ("None", None, "|", "_")]
    assert len(set(drawn)) == len(drawn) == len(VERSIONS) + 2


def test_published_figures_are_credited_to_their_source(run, rows):
    captions = {one.name: one.caption for one in draw(lambda: of_runs([run], rows))}
    assert "Flopping for FLOPs (A100-40GB, batch 64" in captions["gain-against-macs"]
    assert "X, E(X) and H(X) by Flopping for FLOPs" in captions["accuracy"]
    assert "H8(X) and I8(X) by Octic" in captions["accuracy"]
