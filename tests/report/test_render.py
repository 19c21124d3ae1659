"""The report's files."""

import json
import re
import xml.etree.ElementTree as ET

import pytest
from markdown_it import MarkdownIt

from flopbench.errors import FlopbenchError
from flopbench.pairs import Pair
from flopbench.report.page import FlagGroup, folder_name
from flopbench.report.result import Result
from flopbench.results import (
    Calibration,
    CellRecord,
    Flag,
    ModelProfile,
    Peaks,
    ProfileRecord,
    Run,
)
from tests.support.runs import CPU, hostile_pair, make_run

SMALL = {"pairs": ("vit_s16.flop", "vit_b16.flop"), "batch_sizes": (1, 4), "modes": ("compile",)}
HOSTILE = '<script>alert(1)</script>|`x`**b**"[l](http://e.com)"'


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    run = make_run(
        folder / "vit-cpu",
        device=CPU,
        flags={"*/b1/forward/*": Flag(kind="noisy", message="±3 %", remedy="a quieter machine")},
        statuses={"vit_b16.flop/*/b4/backward/*": "oom"},
        **SMALL,
    )
    return run, Result([run]).report(folder / "reports")


def test_every_file_is_there_and_linked_relatively(small):
    run, files = small
    folder = files.markdown.parent
    assert folder.name == run.info.id
    assert {path.name for path in folder.iterdir()} == {
        "report.md",
        "report.html",
        "table.csv",
        "table.json",
        *(path.name for path in files.pictures),
    }
    text = files.markdown.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {"speedup-against-batch.svg", "realised-share.png", "table.csv"} <= set(links)
    for link in links:
        assert (folder / link).is_file(), link
    assert len(json.loads(files.json.read_text(encoding="utf-8"))) == 8


def test_it_starts_with_the_answer_and_ends_with_how_to_reproduce(small):
    run, files = small
    text = files.markdown.read_text(encoding="utf-8")
    assert text.splitlines()[2].startswith("**On an Intel Xeon")
    assert text.rstrip().endswith("```sh\nflopbench run --suite vit --device cpu\n```")
    assert run.info.environment.commit in text
    order = [
        "## Pictures",
        "## Environment",
        "## Models",
        "## Speed-ups",
        "## Cells without",
        "## What to take",
    ]
    places = [text.index(heading) for heading in order]
    assert places == sorted(places)
    assert "Remedy: a quieter machine" in text
    assert "out of memory" in text


def test_the_same_run_gives_the_same_bytes(small, tmp_path):
    run, files = small
    again = Result([run]).report(tmp_path)
    for path in files.markdown.parent.iterdir():
        assert path.read_bytes() == (again.markdown.parent / path.name).read_bytes(), path.name


def test_pictures_are_well_formed_and_bear_no_date_or_path(small):
    _, files = small
    assert len(files.pictures) >= 10
    for path in files.pictures:
        data = path.read_bytes()
        if path.suffix == ".svg":
            assert ET.fromstring(data).tag.endswith("svg")
            assert b"<dc:date>" not in data
        else:
            assert data.startswith(b"\x89PNG")
    page = files.html.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)


def test_pictures_without_data_are_left_out_with_a_sentence(small):
    _, files = small
    names = {path.stem for path in files.pictures}
    assert not names & {"roofline", "time-by-operator"}
    text = files.markdown.read_text(encoding="utf-8")
    assert "No roofline: " in text
    assert "`flopbench profile PAIR`" in text


def test_calibration_and_profile_make_roofline_and_time(tmp_path):
    run = make_run(tmp_path / "run", **SMALL)
    calibration = Calibration(peaks=Peaks(flops_per_second={"bf16": 7e14}, copy_bytes_per_second=4e12))
    (run.path / "calibration.json").write_text(calibration.model_dump_json(by_alias=True), encoding="utf-8")
    models = [
        ModelProfile(
            label=label,
            seconds=0.01,
            groups={"matrix products": 0.006, "elementwise": 0.002},
            flops=2e12,
            bytes_moved=1e10,
        )
        for label in ("ViT-B/16", "E(ViT-B/16)")
    ]
    profile = ProfileRecord.model_validate(
        {
            "cell": {
                "pair": Pair.of("vit_b16.flop"),
                "device": "cuda",
                "batch_size": 64,
                "pass": "forward",
                "dtype": "bf16",
                "mode": "compile",
            },
            "baseline": models[0],
            "candidate": models[1],
        }
    )
    (run.path / "profile-0.json").write_text(profile.model_dump_json(by_alias=True), encoding="utf-8")
    files = Result([run]).report(tmp_path / "reports")
    assert {"roofline", "time-by-operator"} <= {path.stem for path in files.pictures}
    assert "No roofline" not in files.markdown.read_text(encoding="utf-8")
    (run.path / "profile-0.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FlopbenchError, match=r"profile-0\.json is damaged: cell"):
        Result([run]).report(tmp_path / "reports")


def test_serving_figures_have_a_table_a_picture_and_a_note(small, tmp_path):
    run = make_run(tmp_path / "served", device=CPU, serving=400, watts=(40.0, 30.0), **SMALL)
    files = Result([run]).report(tmp_path / "reports")
    for text in (files.markdown.read_text(encoding="utf-8"), files.html.read_text(encoding="utf-8")):
        assert "Serving: calls one at a time, and starting" in text
        assert "Latencies are of calls one at a time" in text
        assert "E(ViT-S/16): p50 " in text
    assert any(picture.name == "latency.svg" for picture in files.pictures)
    _, without = small
    assert "Serving" not in without.markdown.read_text(encoding="utf-8")
    assert "Serving" not in without.html.read_text(encoding="utf-8")
    assert not any(picture.name == "latency.svg" for picture in without.pictures)


def test_several_widths_make_a_picture(tmp_path):
    run = make_run(tmp_path / "run", **SMALL, axes={"widths": [192, 768], "depths": [2, 4]})
    files = Result([run]).report(tmp_path / "reports")
    assert "speedup-against-width" in {path.stem for path in files.pictures}
    rows = json.loads(files.json.read_text(encoding="utf-8"))
    assert {(row["width"], row["depth"]) for row in rows} == {(192, 2), (192, 4), (768, 2), (768, 4)}


def test_several_runs_stand_side_by_side(small, tmp_path):
    run, _ = small
    other = make_run(tmp_path / "vit-h200", **SMALL)
    files = Result([run, other]).report(tmp_path / "reports")
    assert files.markdown.parent.name == "vit-cpu+vit-h200"
    text = files.markdown.read_text(encoding="utf-8")
    assert "**On an Intel Xeon" in text
    assert "**On an NVIDIA H200" in text
    assert "| what | vit-cpu | vit-h200 |" in text
    names = {path.stem for path in files.pictures}
    assert {"side-by-side", "speedup-against-batch-1", "speedup-against-batch-2"} <= names
    with pytest.raises(FlopbenchError, match="must differ"):
        Result([run, run]).report(tmp_path / "reports")


def test_a_run_with_nothing_measured_still_has_a_report(tmp_path):
    run = make_run(tmp_path / "run", pairs=("vit_s16.flop",), batch_sizes=(1,), statuses={"*": "failed"})
    files = Result([run]).report(tmp_path / "reports")
    assert files.pictures == ()
    assert "no cell has a speed-up" in files.html.read_text(encoding="utf-8")


def hostile_run(folder) -> Run:
    """A run whose every free text tries to break out."""
    run = make_run(
        folder / "plain",
        pairs=("vit_s16.flop",),
        batch_sizes=(4,),
        passes=("forward",),
        modes=("compile",),
        flags={"*": Flag(kind=HOSTILE, message=HOSTILE, remedy=HOSTILE)},
        info={"title": HOSTILE, "id": f"../{HOSTILE}", "command": f"flopbench run\n```\n{HOSTILE}"},
        device_name=HOSTILE,
    )
    record = run.records()[0]
    cell = record.cell.model_copy(update={"pair": hostile_pair(HOSTILE)})
    run.append(record.model_copy(update={"cell": cell}))
    run.append(
        CellRecord(cell=cell, replicate=1, status="failed", reason=HOSTILE, started="", wall_seconds=1)
    )
    return run


def test_text_from_files_is_escaped(tmp_path):
    files = Result([hostile_run(tmp_path)]).report(tmp_path / "reports")
    assert files.markdown.parent.parent == tmp_path / "reports"
    page = files.html.read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    # As GitHub renders it: no element or link but the report's own.
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    html = markdown.render(files.markdown.read_text(encoding="utf-8"))
    assert "<script" not in html
    assert 'href="http' not in html
    shown = re.sub(r"<code>.*?</code>", "", html, flags=re.DOTALL)
    assert shown.count("alert(1)&lt;/script&gt;|`x`**b**") >= 8
    for table in re.findall(r"<table>.*?</table>", html, flags=re.DOTALL):
        rows = table.split("<tr>")[1:]
        assert len({len(re.findall(r"<t[dh]\b", row)) for row in rows}) == 1


def test_it_says_what_was_compiled_beforehand(tmp_path):
    run = make_run(tmp_path / "run", pairs=("vit_s16.flop",), passes=("forward",))
    record = next(one for one in run.records() if one.cell.mode == "compile")
    sentence = "were compiled beforehand, by 8 processes side by side"
    assert sentence not in Result([run]).report(tmp_path / "before").markdown.read_text()
    run.append(record.model_copy(update={"compiled_beforehand": 8}))
    files = Result([run]).report(tmp_path / "after")
    for file in (files.markdown, files.html):
        assert f"Of 3 compiled cells 1 {sentence}" in file.read_text()


def test_folder_names_are_safe():
    assert folder_name(["../../etc/passwd"]) == "_.._etc_passwd"
    assert folder_name([".."]) == "run"
    assert folder_name(["a", "b"]) == "a+b"
    long = folder_name(["x" * 90, "y" * 90])
    assert len(long) <= 120
    assert long != folder_name(["x" * 90, "z" * 90])


def test_alternative_texts_say_the_figures(small):
    _, files = small
    row = next(
        row
        for row in json.loads(files.json.read_text(encoding="utf-8"))
        if (row["candidate_label"], row["pass"], row["batch_size"]) == ("E(ViT-S/16)", "forward", 4)
    )
    text = files.markdown.read_text(encoding="utf-8")
    alts = {name: alt for alt, name in re.findall(r"!\[(.*)\]\(([\w-]+)\.svg\)", text)}
    gain, share = round((row["speedup"] - 1) * 100), round(row["realised_share"] * 100)
    assert f"E(ViT-S/16): +{gain} % over a baseline of 4.60 G MACs" in alts["gain-against-macs"]
    assert f"E(ViT-S/16), forward, batch 4: {row['speedup']:.2f}×" in alts["speedup-against-batch"]
    assert f"E(ViT-S/16), forward: {share} %" in alts["realised-share"]
    assert all(re.search(r"\d", alt) for alt in alts.values())


def test_pictures_follow_dark_mode_wherever_they_are_shown(small):
    """Every colour that is legible on paper alone has one for the dark, in the files and on the page."""
    _, files = small
    page = files.html.read_text(encoding="utf-8")
    for svg in (path.read_text(encoding="utf-8") for path in files.pictures if path.suffix == ".svg"):
        rules = svg[svg.index("@media screen and (prefers-color-scheme: dark)") : svg.index("</style>")]
        used = set(re.findall(r"\b(fill|stroke): (#(?:ffffff|1f2328|59636e|d8dee4|0072b2|aa4499))\b", svg))
        assert used
        assert {f'[style*="{part}: {colour}"]' for part, colour in used} <= set(re.findall(r"\[.*?\]", rules))
        assert rules.strip() in page


def test_ones_own_networks_get_no_caption_of_the_papers(tmp_path):
    run = make_run(tmp_path / "run", pairs=("vit_s16.flop",), batch_sizes=(4,), modes=("compile",))
    record = run.records()[0]
    (run.path / "cells.jsonl").unlink()
    pair = Pair(baseline="mine:net", candidate="mine:twin")
    models = {
        role: getattr(record, role).model_copy(update={"name": name, "label": name})
        for role, name in (("baseline", pair.baseline), ("candidate", pair.candidate))
    }
    run.append(record.model_copy(update={"cell": record.cell.model_copy(update={"pair": pair}), **models}))
    text = Result([run]).report(tmp_path / "reports").markdown.read_text(encoding="utf-8")
    assert "Throughput gain" in text
    assert "published" not in text
    assert "paper" not in text


def test_what_is_flagged_is_not_shown_as_good(small):
    _, files = small
    rows = re.findall(r"<tr>.*?</tr>", files.html.read_text(encoding="utf-8"), flags=re.DOTALL)
    flagged = [row for row in rows if ">noisy<" in row]
    assert flagged
    assert not any('class="number good"' in row for row in flagged)
    assert any('class="number good"' in row for row in rows)


def test_a_cell_with_a_flag_of_either_model_is_one_cell():
    group = FlagGroup("drifting", "", (("a", "baseline"), ("a", "candidate")))
    assert group.counted == "1 cell"
    assert FlagGroup("drifting", "", (("a", ""), ("b", ""))).counted == "2 cells"
