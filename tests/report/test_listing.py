"""The table of models: every version, its parameters, and its MACs if they are asked for."""

from flopbench.report import listing
from flopbench.report.text import exact, markdown_escape
from tests.support.counts import published_counts


def test_macs_are_those_of_the_whole_network(monkeypatch):
    octic = "vit_ti16.octic_hybrid"
    names = ["vit_ti16", octic]
    monkeypatch.setattr(listing, "list_models", lambda: names)
    plain = published_counts("models.csv")["vit_ti16"]["macs"]
    folded = published_counts("octic-models.csv")[octic]["macs_folded"]
    rows = [line.split("|") for line in listing.models_table(macs=True).markdown().splitlines()]
    shown = {row[1].strip(): row[4] for row in rows if len(row) > 4}
    for name, macs in zip(names, (plain, folded), strict=True):
        written = next(value for key, value in shown.items() if key.replace("\\", "") == name)
        assert "".join(filter(str.isdigit, written)) == macs


def test_macs_are_not_counted_unasked(monkeypatch):
    monkeypatch.setattr(listing, "list_models", lambda: ["vit_ti16"])
    monkeypatch.setattr(listing, "_counted", None)
    assert "5 721 832" in listing.models_table().markdown().replace("\u202f", " ").replace("\u00a0", " ")


def test_of_pairs_against_another_baseline_suites_name_both():
    (octic,) = [line for line in listing.suites_table().markdown().splitlines() if "| octic |" in line]
    assert "D8(ViT-B/16), H8" in octic
    assert "D8(ViT-B/16) against E(ViT-B/16)" in octic


def test_recipes_are_listed_with_how_long_they_train():
    (deit,) = [line for line in listing.recipes_table().markdown().splitlines() if "| deit3-400 |" in line]
    assert [cell.strip() for cell in deit.split("|")][3:-1] == [
        "400", markdown_escape(exact(2048)), "224×224", "lamb", "autocast-fp16 compile"
    ]  # fmt: skip
