"""Run folders: append-only, flushed, readable after any accident."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from flopbench.errors import FlopbenchError
from flopbench.results import FrontierRecord, Run, merge_runs, to_frame, write_atomically
from flopbench.results.files import as_json
from flopbench.runner.begin import RESUME_FIELDS
from tests.support.runs import make_run


def test_what_is_appended_is_read_back(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1, 8))
    again = Run.open(run.path)
    assert again.info == run.info
    assert again.records() == run.records()
    assert len(again.records()) > 0


def test_a_later_measurement_of_a_cell_counts(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    first = run.records()[0]
    run.append(first.model_copy(update={"status": "oom", "reason": "again"}))
    records = run.records()
    assert records[0].status == "oom"
    assert len(list(run.lines())) == len(records) + 1


def test_a_torn_last_line_is_passed_over_with_a_warning(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    whole = run.records()
    with (run.path / "cells.jsonl").open("a") as file:
        file.write('{"schema": 1, "cell": {"pa')
    with pytest.warns(UserWarning, match="line .* is damaged: .*; passed over"):
        assert run.records() == whole


@pytest.mark.parametrize("file", ["cells", "frontier"])
def test_a_torn_last_line_is_set_aside_and_kept(tmp_path: Path, file: str):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    cells = run.records()
    frontier = FrontierRecord(name="vit_s16", label="ViT-S/16", cell=cells[0].cell, largest_batch=64)
    run.append_frontier(frontier)
    with (run.path / f"{file}.jsonl").open("a") as stream:
        stream.write('{"torn')
    with pytest.warns(UserWarning, match=f"set aside in {file}.torn"):
        run.set_torn_lines_aside()
    run.append(cells[0])
    run.append_frontier(frontier)
    assert run.records() == cells
    assert run.frontiers() == [frontier] * 2
    assert (run.path / f"{file}.torn").read_text() == '{"torn\n'


@pytest.mark.parametrize(
    "damage",
    [
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"wall_seconds": ' + b"9" * 5000 + b"}",
        b'{"schema":1,"schema":"one"}',
    ],
    ids=["empty", "null", "no UTF-8", "deep", "digits", "type"],
)
def test_a_damaged_line_costs_that_line(tmp_path: Path, damage: bytes):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    whole = run.records()
    file = run.path / "cells.jsonl"
    first, rest = file.read_bytes().split(b"\n", 1)
    file.write_bytes(b"\n".join([first, damage, rest]))
    with pytest.warns(UserWarning, match=r"cells\.jsonl, line 2 is damaged: .*; passed over$") as caught:
        assert run.records() == whole
    assert len(caught) == 1


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_no_figure(tmp_path: Path, value: str):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    file = run.path / "cells.jsonl"
    first, rest = file.read_text().split("\n", 1)
    changed = re.sub(r'"wall_seconds":[\d.]+', f'"wall_seconds":{value}', first)
    file.write_text(f"{changed}\n{rest}")
    with pytest.warns(UserWarning, match="line 1 is damaged: wall_seconds: .*finite number"):
        assert len(run.records()) == rest.count("\n")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"speedup": {"estimate": 0, "low": 0, "high": 0}}, "speedup: .*above zero"),
        ({"speedup": {"estimate": 1.2, "low": -0.1, "high": 2}}, "speedup: .*above zero"),
        ({"baseline": {"samples": [[0.0]]}}, r"baseline\.samples\[0\]\[0\]: .*greater than 0"),
        ({"candidate": {"samples": [[]]}}, r"candidate\.samples\[0\]: .*at least 1 item"),
        ({"candidate": {"samples": [[1.0]]}}, "both models have as many rounds"),
    ],
)
def test_what_is_no_time_is_no_figure(tmp_path: Path, value: dict[str, dict[str, object]], message: str):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    file = run.path / "cells.jsonl"
    first, rest = file.read_text().split("\n", 1)
    record = json.loads(first)
    for key, figures in value.items():
        record[key] |= figures
    file.write_text(f"{json.dumps(record)}\n{rest}")
    with pytest.warns(UserWarning, match=f"line 1 is damaged: {message}"):
        assert len(run.records()) == rest.count("\n")


def test_a_line_of_a_newer_flopbench_is_no_damage(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    file = run.path / "cells.jsonl"
    file.write_text(file.read_text().replace('"schema":2', '"schema":3', 1))
    message = r"line 1 is of schema 3, from a newer flopbench: .* up to 2; upgrade"
    with pytest.raises(FlopbenchError, match=message):
        run.records()


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_a_line_ends_at_a_newline_alone(tmp_path: Path, character: str):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    whole = run.records()
    file = run.path / "cells.jsonl"
    escaped = json.dumps(character)[1:-1] if character < " " else character
    file.write_text(file.read_text().replace('"reason":""', f'"reason":"{escaped}"', 1), newline="")
    assert [record.reason for record in run.records()] == [character, *(r.reason for r in whole[1:])]


def test_what_no_file_can_hold_is_replaced_when_written(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    reason = "a\ud800b\x1b[31mc\x85d\u2028e\rf\n\tµ"
    run.append(run.records()[0].model_copy(update={"reason": reason, "device_state": {"\x1b": ["\x07"]}}))
    record = list(run.lines())[-1]
    assert record.reason == "a\ufffdb\ufffd[31mc\ufffdd\ufffde\ufffdf\n\tµ"
    assert record.device_state == {"\ufffd": ["\ufffd"]}


def test_a_last_line_that_lacks_only_its_newline_counts(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    whole = run.records()
    file = run.path / "cells.jsonl"
    file.write_bytes(file.read_bytes().removesuffix(b"\n"))
    run.set_torn_lines_aside()
    assert run.records() == whole
    run.append(whole[0])
    assert list(run.lines()) == [*whole, whole[0]]


def test_what_is_appended_after_a_torn_line_is_not_glued_to_it(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    with (run.path / "cells.jsonl").open("a") as file:
        file.write('{"torn')
    run.append(next(run.lines()))
    with pytest.warns(UserWarning, match="is damaged"):
        assert len(list(run.lines())) == len(run.records()) + 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"schema": 99}', "of schema 99, from a newer flopbench: this one reads up to 2; upgrade it"),
        ('{"schema": 1}', "damaged"),
        (b'{"id": "\xff"}', "damaged: Invalid JSON"),
        ("[" * 100_000, "damaged: Invalid JSON: recursion limit"),
        ("9" * 5000, "damaged: Invalid JSON: number out of range"),
        ("NaN", "damaged: Input should be an object"),
        ('{"\\n\\u001b": 1}', "damaged: "),
    ],
)
def test_a_damaged_run_json_is_one_line(tmp_path: Path, content: str | bytes, message: str):
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / "run.json").write_bytes(data)
    with pytest.raises(FlopbenchError, match=message) as caught:
        Run.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_run_is_written_over(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1,))
    before = run.records()
    with pytest.raises(FlopbenchError, match="exists already"):
        Run.create(run.path, run.info)
    assert run.records() == before


def test_writing_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "table.csv"
    write_atomically(file, "old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_the_frame_has_a_row_a_cell_and_the_promise_kept(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1, 8), statuses={"*/b8/backward/*": "oom"})
    frame = to_frame([run])
    assert len(frame) == len(run.records())
    measured = frame[frame.status == "ok"]
    promised = (measured.speedup - 1) / (measured.macs_ratio - 1)
    assert measured.realised_share.to_list() == pytest.approx(promised.to_list())
    assert frame[frame.status == "oom"].speedup.isna().all()
    throughput = measured.batch_size / measured.candidate_seconds
    assert measured.candidate_throughput.to_list() == pytest.approx(throughput.to_list())


def test_the_frame_has_the_energy_where_it_is_known(tmp_path: Path):
    (first, *_) = to_frame([make_run(tmp_path / "a", watts=(600.0, 450.0))]).to_dict("records")
    assert first["baseline_watts"] == 600
    assert first["candidate_images_per_joule"] == pytest.approx(first["candidate_throughput"] / 450, rel=0.01)
    frame = to_frame([make_run(tmp_path / "b")])
    assert frame.baseline_joules.isna().all()
    assert frame.candidate_images_per_joule.isna().all()


def halves(tmp_path: Path) -> tuple[Run, list[Run]]:
    whole = make_run(tmp_path / "whole", batch_sizes=(1, 8))
    parts = []
    for index in (0, 1):
        part = Run.create(tmp_path / f"part{index}", whole.info.model_copy(update={"shard": (index + 1, 2)}))
        for record in whole.records()[index::2]:
            part.append(record)
        parts.append(part)
    return whole, parts


def test_merged_shards_hold_the_whole(tmp_path: Path):
    whole, parts = halves(tmp_path)
    parts[0].append_frontier(
        FrontierRecord(name="vit_s16", label="ViT-S/16", cell=whole.records()[0].cell, largest_batch=64)
    )
    merged = merge_runs(parts, tmp_path / "merged", RESUME_FIELDS)
    assert {r.key: r for r in merged.records()} == {r.key: r for r in whole.records()}
    assert [frontier.largest_batch for frontier in merged.frontiers()] == [64]
    assert merged.info.shard is None


def test_unlike_machines_do_not_merge(tmp_path: Path):
    _, (first, second) = halves(tmp_path)
    content = json.loads((second.path / "run.json").read_text())
    content["environment"]["device_name"] = "another GPU"
    (second.path / "run.json").write_text(json.dumps(content))
    with pytest.raises(FlopbenchError, match=r"device_name: .* → another GPU"):
        merge_runs([first, Run.open(second.path)], tmp_path / "merged", RESUME_FIELDS)
    assert not (tmp_path / "merged").exists()


def test_a_cell_in_two_shards_does_not_merge(tmp_path: Path):
    _, (first, second) = halves(tmp_path)
    second.info = second.info.model_copy(update={"id": "other"})
    second.append(first.records()[0])
    with pytest.raises(FlopbenchError, match="is in both"):
        merge_runs([first, second], tmp_path / "merged", RESUME_FIELDS)


def test_a_run_does_not_merge_with_itself(tmp_path: Path):
    _, (first, _) = halves(tmp_path)
    with pytest.raises(FlopbenchError, match=r"cannot merge: .* is in both .*part0 and .*part0"):
        merge_runs([first, Run.open(first.path)], tmp_path / "merged", RESUME_FIELDS)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("{cwd}/src/nets.py:12: in forward", "src/nets.py:12: in forward"),
        ("cannot open {home}/a b/nets.py", "cannot open ~/a b/nets.py"),
        ("/usr/lib/python3.11/site-packages/torch/nn/linear.py, line 3", "linear.py, line 3"),
        ("File '/opt/data/x.py'", "File 'x.py'"),
        ("https://pytorch.org/docs/x", "https://pytorch.org/docs/x"),
        ("vit_s16.flop/cpu/b1/forward/fp32/eager", "vit_s16.flop/cpu/b1/forward/fp32/eager"),
        ("vit_s16.flop/*/b1/*", "vit_s16.flop/*/b1/*"),
        ("812 images/s/GPU", "812 images/s/GPU"),
    ],
)
def test_what_is_written_says_no_path_of_the_machine(tmp_path: Path, said: str, kept: str):
    (record, *_) = make_run(tmp_path / "run").records()
    said = said.format(cwd=Path.cwd(), home=Path.home())
    assert json.loads(as_json(record.model_copy(update={"reason": said})))["reason"] == kept


def test_nothing_is_realised_where_the_macs_promise_no_gain(tmp_path):
    record = next(r for r in make_run(tmp_path / "r").records() if r.realised_share is not None)
    swapped = record.model_copy(update={"baseline": record.candidate, "candidate": record.baseline})
    assert swapped.macs_ratio is not None
    assert swapped.macs_ratio < 1
    assert swapped.realised_share is None


def test_serving_figures_are_in_the_frame(tmp_path: Path):
    run = make_run(tmp_path / "a", batch_sizes=(1,), modes=("eager",), pairs=("vit_s16.flop",), serving=100)
    forward, backward = run.records()
    assert Run.open(run.path).records() == [forward, backward]
    assert forward.baseline is not None
    serving = forward.baseline.serving
    assert serving is not None
    row, without = to_frame([run]).to_dict("records")
    p90 = serving.latency(90)
    assert p90 is not None
    found = [row[f"baseline_latency_p90{end}"] for end in ("", "_low", "_high")]
    assert found == [p90.estimate, p90.low, p90.high]
    assert p90.low < p90.estimate < p90.high
    assert (row["baseline_latency_calls"], row["baseline_latency_p99"]) == (100, None)
    assert row["baseline_disk_bytes"] == serving.disk_bytes > row["candidate_disk_bytes"]
    assert row["baseline_load_seconds"] == serving.load_seconds
    assert row["baseline_first_call_seconds"] == serving.first_call_seconds
    assert pd.isna(without["baseline_latency_calls"])
