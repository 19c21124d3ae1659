import json
import re

import pytest
from typer.testing import CliRunner

from flopbench.cli import app
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.regression.compare import by_cell, compare_records, compare_runs
from flopbench.regression.decision import Outcome
from flopbench.results import Calibration, Peaks
from flopbench.suites import MinimumEffect
from tests.support.runs import A100, CPU, H200, environment, make_run

SMALL = {
    "pairs": ("vit_s16.flop", "vit_b16.flop"),
    "batch_sizes": (8,),
    "modes": ("compile",),
    "replicates": 4,
}


def _pair_of_runs(tmp_path, base=None, new=None, **both):
    options = {**SMALL, **both}
    one = make_run(tmp_path / "base", **{**options, **(base or {})}, seed=1)
    return one, make_run(tmp_path / "new", **{**options, **(new or {})}, seed=2)


def test_two_runs_of_the_same_thing_pass(tmp_path):
    comparison = compare_runs(*_pair_of_runs(tmp_path))
    assert comparison.outcome is Outcome.PASS
    assert {change.metric for change in comparison.changes} >= {
        "speedup",
        "throughput",
        "peak_memory",
        "macs",
    }


def test_a_slower_candidate_fails_in_its_cells_alone(tmp_path):
    comparison = compare_runs(*_pair_of_runs(tmp_path, new={"slowdown": {"vit_s16*forward*": 1.2}}))
    failed = comparison.of(Outcome.FAIL)
    assert {change.subject for change in failed} == {"vit_s16.flop/cuda/b8/forward/bf16/compile"}
    assert {(change.metric, change.label) for change in failed} == {
        ("speedup", ""),
        ("throughput", "E(ViT-S/16)"),
    }
    assert all(change.change and change.change.low <= 0.2 <= change.change.high for change in failed)


def test_a_faster_candidate_passes(tmp_path):
    assert compare_runs(*_pair_of_runs(tmp_path, new={"slowdown": 0.7})).outcome is Outcome.PASS


@pytest.mark.parametrize("slowdown", [1.0, 1.2])
@pytest.mark.parametrize("single", [{"base": {"replicates": 1}}, {"new": {"replicates": 1}}])
def test_a_single_process_decides_nothing_and_says_so(tmp_path, slowdown, single):
    new = {"slowdown": slowdown, **single.get("new", {})}
    comparison = compare_runs(*_pair_of_runs(tmp_path, base=single.get("base"), new=new))
    timed = [change for change in comparison.changes if change.metric in ("speedup", "throughput")]
    assert {change.outcome for change in timed} == {Outcome.AMBIGUOUS}
    assert all("--replicates" in change.note for change in timed)
    # What has no noise is decided all the same.
    assert {c.outcome for c in comparison.changes if c.metric == "macs"} == {Outcome.PASS}
    assert comparison.exit_code() == 0
    assert comparison.exit_code(strict=True) == 4


def test_two_processes_a_side_decide(tmp_path):
    runs = _pair_of_runs(tmp_path, new={"slowdown": 1.5}, replicates=2, noise=0.001)
    assert compare_runs(*runs).outcome is Outcome.FAIL


def test_noise_widens_the_tolerance_and_never_fails(tmp_path):
    runs = _pair_of_runs(tmp_path, noise=0.3)
    comparison = compare_runs(*runs)
    assert not comparison.of(Outcome.FAIL)
    assert any(change.tolerance > 0.05 and "A/A" in change.note for change in comparison.changes)
    assert any("too noisy for the minimum effect: 4 × speedup" in note for note in comparison.notes)
    assert not any("noisy" in note for note in compare_runs(*_pair_of_runs(tmp_path / "calm")).notes)


@pytest.mark.parametrize("slowdown", [1.0, 1.15])
def test_what_the_machine_does_to_both_of_a_pair_is_forgiven(tmp_path, slowdown):
    """A neighbour slows every other pair of processes by half: only the paired comparison sees through it."""
    sides = []
    for side in (1.0, slowdown):
        runs = [
            make_run(
                tmp_path / f"{side}-{turn}-{len(sides)}",
                **{**SMALL, "replicates": 1},
                slowdown=side * (1.5 if turn % 2 else 1.0),
                seed=turn + 10 * len(sides),
                noise=0.005,
            )
            for turn in range(6)
        ]
        sides.append(by_cell(record for run in runs for record in run.records()))
    paired = compare_records(sides[0], sides[1], MinimumEffect(), ("throughput",), paired=True)
    assert paired.outcome is (Outcome.PASS if slowdown == 1.0 else Outcome.FAIL)
    apart = compare_records(sides[0], sides[1], MinimumEffect(), ("throughput",))
    assert not apart.of(Outcome.FAIL)


def test_the_stated_minimum_effect_decides(tmp_path):
    runs = _pair_of_runs(tmp_path, new={"slowdown": 1.1}, noise=0.002)
    assert compare_runs(*runs).outcome is Outcome.FAIL
    assert compare_runs(*runs, MinimumEffect(speedup=0.2, throughput=0.2)).outcome is Outcome.PASS
    only = {"cells": {"vit_s16.flop/*": {"speedup": 0.2, "throughput": 0.2}}}
    failed = compare_runs(*runs, MinimumEffect.model_validate(only)).of(Outcome.FAIL)
    assert {change.subject.split("/")[0] for change in failed} == {"vit_b16.flop"}


def test_what_a_calibration_cannot_see_is_no_regression(tmp_path):
    base, new = _pair_of_runs(tmp_path, new={"slowdown": 1.1}, noise=0.002)
    visible = {record.cell.id: 0.3 for record in base.records()}
    calibration = Calibration(
        peaks=Peaks(flops_per_second={}, copy_bytes_per_second=1e9), visible_change=visible
    )
    (base.path / "calibration.json").write_text(calibration.model_dump_json(by_alias=True))
    assert compare_runs(base, new, metrics=("speedup",)).outcome is Outcome.PASS


def test_between_machines_only_what_is_comparable(tmp_path):
    comparison = compare_runs(*_pair_of_runs(tmp_path, new={"device": A100}))
    assert {change.metric for change in comparison.changes} == {"speedup", "parameters", "macs"}
    assert any("NVIDIA H200 → NVIDIA A100" in note for note in comparison.notes)


def test_throughput_between_machines_is_refused(tmp_path):
    with pytest.raises(FlopbenchError, match="device_name: NVIDIA H200 → NVIDIA A100"):
        compare_runs(*_pair_of_runs(tmp_path, new={"device": A100}), metrics=("throughput",))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dtypes": ("fp32",)}, "dtype bf16 → fp32"),
        ({"batch_sizes": (64,)}, "batch_size 8 → 64"),
        ({"modes": ("eager",)}, "mode compile → eager"),
        ({"pairs": ("vit_l16.flop",)}, "pair vit_b16.flop, vit_s16.flop → vit_l16.flop"),
        ({"device": CPU}, "device cuda → cpu"),
    ],
)
def test_unlike_runs_are_refused_with_the_difference_named(tmp_path, change, named):
    with pytest.raises(FlopbenchError, match=named):
        compare_runs(*_pair_of_runs(tmp_path, new=change))


def test_another_torch_is_named_but_compared(tmp_path):
    comparison = compare_runs(*_pair_of_runs(tmp_path, new={"torch": "2.15.0"}))
    assert comparison.outcome is Outcome.PASS
    assert any("torch: 2.13.0 → 2.15.0" in note for note in comparison.notes)


@pytest.mark.parametrize("status", ["failed", "oom", "crashed", "timeout"])
def test_a_cell_that_no_longer_works_fails(tmp_path, status):
    comparison = compare_runs(*_pair_of_runs(tmp_path, new={"statuses": {"vit_s16*forward*": status}}))
    (failure,) = comparison.of(Outcome.FAIL)
    assert failure.metric == "status"
    assert status in failure.note


def test_a_skipped_cell_is_missing(tmp_path):
    comparison = compare_runs(*_pair_of_runs(tmp_path, new={"statuses": {"vit_s16*forward*": "skipped"}}))
    (change,) = comparison.of(Outcome.MISSING)
    assert "is skipped now" in change.note
    assert comparison.exit_code() == 3


def test_cells_that_the_new_run_lacks_are_named_in_full(tmp_path):
    base, new = _pair_of_runs(tmp_path, new={"pairs": ("vit_b16.flop",)})
    comparison = compare_runs(base, new)
    lost = {record.cell.id for record in base.records()} - {record.cell.id for record in new.records()}
    assert {change.subject for change in comparison.of(Outcome.MISSING)} == lost
    assert comparison.exit_code() == 3
    back = compare_runs(new, base)
    assert back.outcome is Outcome.PASS
    assert all(any(cell in note for note in back.notes) for cell in lost)


@pytest.mark.parametrize(("figure", "metric"), [("macs", "macs"), ("peak_bytes", "peak_memory")])
def test_a_figure_that_got_lost_is_missing(tmp_path, figure, metric):
    base, new = _pair_of_runs(tmp_path)
    text = (new.path / "cells.jsonl").read_text()
    (new.path / "cells.jsonl").write_text(re.sub(rf'"{figure}":\d+', f'"{figure}":null', text))
    lost = compare_runs(base, new).of(Outcome.MISSING)
    assert {change.metric for change in lost} == {metric}
    assert any("E(ViT-B/16) is missing now" in change.note for change in lost)
    assert compare_runs(new, base).outcome is Outcome.PASS


def test_a_regression_outweighs_what_is_missing(tmp_path):
    new = {"pairs": ("vit_b16.flop",), "slowdown": 1.5}
    assert compare_runs(*_pair_of_runs(tmp_path, new=new)).exit_code() == 1


def test_nothing_measured_is_an_error_of_its_own(tmp_path):
    nothing = {"statuses": {"*": "skipped"}}
    with pytest.raises(NothingMeasuredError):
        compare_runs(*_pair_of_runs(tmp_path, base=nothing, new=nothing))


def test_another_network_fails_whatever_it_saves(tmp_path):
    base, new = _pair_of_runs(tmp_path)
    text = (new.path / "cells.jsonl").read_text()
    (new.path / "cells.jsonl").write_text(text.replace('"parameters":11039656', '"parameters":11039650'))
    failed = compare_runs(base, new).of(Outcome.FAIL)
    assert {(change.metric, change.note) for change in failed} == {("parameters", "not the same network")}


def test_machine_fields_exist():
    assert environment(H200).differences(environment(CPU), ("device", "cores")) == [
        "device: cuda → cpu",
        "cores: 16 → 2",
    ]


def _compare(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_command_prints_what_it_decided_and_exits_with_it(tmp_path):
    base, new = _pair_of_runs(tmp_path, new={"slowdown": {"vit_s16*": 1.3}})
    assert _compare(base.path, base.path).exit_code == 0
    shown = _compare(base.path, new.path, "--junit", tmp_path / "j.xml", "--out", tmp_path / "out")
    assert shown.exit_code == 1
    assert "FAIL" in shown.stdout
    assert (tmp_path / "j.xml").is_file()
    assert json.loads((tmp_path / "out/comparison.json").read_text())["outcome"] == "fail"
    as_json = _compare(base.path, new.path, "--format", "json")
    assert json.loads(as_json.stdout)["outcome"] == "fail"
    as_markdown = _compare(base.path, new.path, "--format", "markdown")
    assert as_markdown.stdout.startswith("## flopbench compare: ❌ fail")


def test_an_ambiguous_comparison_fails_only_if_strict(tmp_path):
    base, new = _pair_of_runs(tmp_path, new={"slowdown": 1.03}, noise=0.01)
    assert _compare(base.path, new.path, "--metric", "speedup").exit_code == 0
    assert _compare(base.path, new.path, "--metric", "speedup", "--strict").exit_code == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "nowhere"], "nowhere does not exist"),
        (["base", "base", "--metric", "sped"], "did you mean speedup"),
        (["base", "base", "--suite", "vti"], "unknown suite 'vti'"),
    ],
)
def test_wrong_input_is_named(tmp_path, monkeypatch, arguments, message):
    make_run(tmp_path / "base", **SMALL)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FlopbenchError, match=message):
        CliRunner().invoke(app, ["compare", *arguments], catch_exceptions=False)
