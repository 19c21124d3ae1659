"""The sweep: every cell ends with a record, whatever happens to it, and a run goes on where it stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.results import Run
from flopbench.runner.begin import check_resumable, recorded_command
from flopbench.runner.jobs import INSPECT, MEASURE
from flopbench.runner.process import Outcome, run_job
from flopbench.runner.sweep import check_cells, launcher, probe_environment, shard_of, sweep
from flopbench.suites import load_suite
from tests.runner.conftest import Watcher, small_suite
from tests.support.networks import LARGE, SMALL

NETWORKS = "tests.support.networks"


def test_a_sweep_measures_every_cell(start, watcher: Watcher):
    run = start(passes=["forward", "backward", "train"], batch_sizes=[2], serving=True)
    sweep(run, watcher)
    records = run.records()
    assert [record.status for record in records] == ["ok"] * 3
    assert records == watcher.records
    for record in records:
        assert record.speedup is not None
        assert record.speedup.low <= record.speedup.estimate <= record.speedup.high
        assert record.baseline is not None
        assert record.candidate is not None
        assert record.baseline.name == LARGE
        assert len(record.baseline.samples) == len(record.candidate.samples) >= 2
        assert record.baseline.macs > record.candidate.macs > 0  # type: ignore[operator]
        assert record.baseline.peak_bytes > record.candidate.peak_bytes > 0  # type: ignore[operator]
        assert record.stop in ("precision", "time", "rounds")
        assert set(record.phases) >= {"build", "check", "warm-up", "memory", "sampling"}
    assert watcher.begun == (3, 0)
    assert {"sampling", "serving"} <= set(watcher.phases)
    forward, *others = records
    assert not any(record.candidate.serving for record in others)
    served = [forward.baseline.serving, forward.candidate.serving]
    for serving in served:
        assert len(serving.latencies) >= 2
        assert serving.first_call_seconds > 0
        assert serving.load_seconds > 0
    assert served[0].disk_bytes > served[1].disk_bytes


def test_a_cell_is_measured_at_its_width(start, watcher: Watcher):
    run = start(["vit_ti16.flop"], batch_sizes=[1], widths=[8, 64], depths=[1])
    sweep(run, watcher)
    narrow, wide = run.records()
    assert [record.status for record in (narrow, wide)] == ["ok", "ok"]
    assert watcher.phases.count("verify and count") == 2
    assert wide.candidate.label == "E(ViT-64×1/16)"
    assert narrow.candidate.macs < wide.candidate.macs < 1e6 < 1.25e9
    assert narrow.candidate.parameters < wide.candidate.parameters
    assert wide.check.agreement is None
    assert wide.check.in_cell < wide.check.in_cell_tolerance


def test_what_is_checked_and_counted_is_so_per_network(start, watcher: Watcher):
    """MACs of a segmentation are not those of a classification, nor those of other pixels."""
    asked = []

    def inspect(job, *arguments, **_):
        (cell,) = arguments
        asked.append((cell.task, cell.decoder, cell.image_size[0]))
        return Outcome("crashed", "as it was asked to")

    axes = {"tasks": ["classification", "segmentation"], "decoders": ["linear", "conv"]}
    run = start(["vit_ti16.flop"], batch_sizes=[1, 2], image_sizes=[32, 64], **axes)
    with pytest.raises(NothingMeasuredError):
        sweep(run, watcher, launch=inspect)
    tasks = [("classification", "linear"), ("segmentation", "linear"), ("segmentation", "conv")]
    assert asked == [(*task, size) for size in (32, 64) for task in tasks]


@pytest.mark.parametrize(
    ("deed", "status", "reason"),
    [
        ("crash", "crashed", "SIGSEGV"),
        ("hang", "timeout", "stopped after 2 s"),
        ("leave", "failed", "the network left by sys.exit(3) (networks.py:"),
        ("abort", "crashed", "SIGABRT"),
        ("memory", "oom", "can't allocate memory"),
        ("nan", "failed", "not finite"),
        ("absent", "failed", "has no 'absent'"),
    ],
)
def test_one_bad_cell_ends_alone(start, watcher: Watcher, deed: str, status: str, reason: str):
    def impatient(job, *arguments, **options):
        # With the hanging cell alone: a busy machine may need its time for the other.
        if deed == "hang" and job == MEASURE and "hang" in arguments[0].pair.candidate:
            options["timeout"] = 2
        return run_job(job, *arguments, **options)

    run = start([f"{NETWORKS}:{deed}@{SMALL}", f"{SMALL}@{LARGE}"], batch_sizes=[1])
    sweep(run, watcher, launch=impatient)
    bad, good = run.records()
    assert (bad.status, good.status) == (status, "ok")
    assert reason in bad.reason


def test_a_candidate_that_is_not_invariant_gets_no_time(start, watcher: Watcher):
    # The worker asks the name whether the network has to be invariant, and the spine's names are sound;
    # so the facts are given here as a wrong network would have produced them.
    def spoilt(job, *arguments, **options):
        outcome = run_job(job, *arguments, **options)
        if job == INSPECT:
            return Outcome(
                "done",
                outcome.value.model_copy(update={"random_errors": {"flop": 1e-6, "quarter turn": 0.3}}),
            )
        assert job != MEASURE, "a wrong network was timed"
        return outcome

    with pytest.raises(NothingMeasuredError, match=r"under a quarter turn: relative error 3\.0e-01"):
        sweep(start(batch_sizes=[1]), watcher, launch=spoilt)
    assert watcher.records[0].status == "failed"


def test_a_budget_spent_on_counting_is_no_timeout_of_the_cell(start, watcher: Watcher):
    run = start(batch_sizes=[1], budget_seconds=9)
    with pytest.raises(NothingMeasuredError, match="the budget was spent"):
        sweep(run, watcher, launch=lambda *_, **__: Outcome("timeout", "stopped after 9 s"))
    # What was skipped is measured when the run is resumed.
    assert [record.status for record in run.records()] == ["skipped"]


def test_nothing_measured_is_an_error_of_its_own(start, watcher: Watcher):
    with pytest.raises(NothingMeasuredError, match="not finite") as caught:
        sweep(start([f"{NETWORKS}:nan@{SMALL}"], batch_sizes=[1]), watcher)
    assert caught.value.exit_code == 3
    for model in (watcher.records[0].baseline, watcher.records[0].candidate):
        assert model is not None
        assert model.implementations == {}  # recorded, and none of ours


def test_replicates_are_processes_of_their_own(start, watcher: Watcher):
    run = start(batch_sizes=[1], replicates=2)
    sweep(run, watcher)
    assert [record.key[1] for record in run.records()] == [0, 1]


def test_the_budget_bounds_the_run_and_names_what_did_not_fit(start, watcher: Watcher):
    run = start(batch_sizes=[1, 2, 4, 8, 16, 32], cell_seconds=60, precision=1e-9, budget_seconds=8)
    begun = time.monotonic()
    sweep(run, watcher)
    # Without a budget the first cell alone would take longer.
    assert time.monotonic() - begun < 60
    statuses = [record.status for record in run.records()]
    assert len(statuses) == 6
    assert statuses[0] == "ok"
    assert "skipped" in statuses
    assert any("budget" in record.reason for record in run.records())


def test_a_resumed_run_measures_only_what_is_missing(start, watcher: Watcher):
    run = start(batch_sizes=[1, 2, 4])
    sweep(run, watcher)
    file = run.path / "cells.jsonl"
    first, _, third = file.read_text().splitlines(keepends=True)
    file.write_text(first + third)
    again = Watcher()
    sweep(Run.open(run.path), again)
    assert [record.cell.batch_size for record in again.records] == [2]
    assert again.begun == (3, 2)
    assert file.read_text().startswith(first + third)


def test_skipped_cells_are_measured_when_the_run_goes_on(start, watcher: Watcher):
    run = start(batch_sizes=[1])
    sweep(run, watcher)
    record = run.records()[0]
    run.append(record.model_copy(update={"status": "skipped", "reason": "interrupted"}))
    sweep(run, watcher)
    assert run.records()[0].status == "ok"


def test_an_interrupt_just_after_a_record_does_not_undo_it(start, watcher: Watcher, monkeypatch):
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    run = start(batch_sizes=[1, 2])
    with monkeypatch.context() as patch:
        patch.setattr(watcher, "finished", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep(run, watcher)
    assert [record.status for record in run.records()] == ["ok", "skipped"]


KILLED = """
import sys
from pathlib import Path
from flopbench.runner.begin import new_run
from flopbench.runner.sweep import probe_environment, sweep
from tests.runner.conftest import Watcher, small_suite
if __name__ == "__main__":
    suite = small_suite(batch_sizes=[1, 2, 4, 8], cell_seconds=1, precision=1e-9)
    environment = probe_environment("cpu")
    run = new_run(suite, suite.profile("cpu"), environment, Path(sys.argv[1]), command="k")
    sweep(run, Watcher())
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_loses_no_finished_cell(tmp_path: Path, watcher: Watcher):
    root = Path(__file__).parents[2]
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "results")],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    finished: list[str] = []
    while len(finished) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        finished = [
            line for file in tmp_path.glob("results/*/cells.jsonl") for line in file.read_text().splitlines()
        ]
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = (tmp_path / "results").iterdir()
    cells = folder / "cells.jsonl"
    whole, newline, torn = cells.read_text().rpartition("\n")
    before = whole + newline
    assert before.startswith(finished[0])
    if not torn:  # the kill seldom falls into the writing itself, where it costs most
        cells.write_text(before + '{"torn')

    run = Run.open(folder)
    with pytest.warns(UserWarning, match="torn and is set aside"):
        sweep(run, watcher)
    assert [record.status for record in run.records()] == ["ok"] * 4
    assert cells.read_text().startswith(before)
    assert len(watcher.records) == 4 - len(before.splitlines())


@pytest.mark.parametrize(
    ("field", "value"), [("torch", "9.9"), ("device_name", "another"), ("driver", "1.2"), ("threads", 99)]
)
def test_no_resuming_on_another_machine(start, environment, field: str, value: object):
    run = start()
    elsewhere = environment.model_copy(update={field: value})
    with pytest.raises(FlopbenchError, match=f"cannot resume .*{field}: .* → {value}"):
        check_resumable(run, small_suite(), elsewhere)


def test_no_resuming_of_another_suite(start, environment):
    run = start()
    check_resumable(run, small_suite(), environment)
    check_resumable(run, None, environment)  # the run knows what it measures
    with pytest.raises(FlopbenchError, match="suite small"):
        check_resumable(run, small_suite(batch_sizes=[7]), environment)


def test_shards_partition_the_cells():
    cells = list(load_suite("vit").profile("cuda").cells("cuda"))
    shards = [shard_of(cells, (index, 5)) for index in range(1, 6)]
    assert sorted(cell.id for shard in shards for cell in shard) == sorted(cell.id for cell in cells)
    # Both worlds of a cell are one machine's.
    assert max(map(len, shards)) - min(map(len, shards)) <= 2
    for shard in shards:
        worlds = Counter(cell.model_copy(update={"impl": "auto"}) for cell in shard)
        assert set(worlds.values()) == {2}
    assert shard_of(cells, (2, 5)) == shards[1]
    with pytest.raises(FlopbenchError, match="6/5"):
        shard_of(cells, (6, 5))


def test_a_run_is_measured_by_one_alone(start, watcher: Watcher):
    run = start(batch_sizes=[1])
    with run.locked(), pytest.raises(FlopbenchError, match=r"is being measured by another flopbench$"):
        sweep(Run.open(run.path), watcher)
    sweep(run, watcher)
    assert [record.status for record in run.records()] == ["ok"]


def test_runs_begun_in_one_second_get_folders_of_their_own(start, monkeypatch):
    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr("flopbench.runner.sweep.datetime", Stopped)
    # Another may make its folder between a look and the making.
    monkeypatch.setattr(Path, "exists", lambda self: False)
    runs = [start() for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(run.info.id == run.path.name for run in runs)


@pytest.mark.parametrize(("impl", "device"), [("triton", "cpu"), ("cpp", "cuda"), ("inductor", "cuda")])
def test_kernels_of_the_other_device_are_refused(monkeypatch, impl: str, device: str):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cell = next(load_suite("vit").profile("cpu").cells("cpu"))
    cell = cell.model_copy(update={"mode": "eager", "impl": impl})
    with pytest.raises(FlopbenchError, match=f"^impl {impl} does not run on device {device}"):
        check_cells([cell.model_copy(update={"device": device})])


@pytest.mark.parametrize("change", [{"dtype": "tf32"}, {"mode": "cuda-graph"}])
def test_what_only_cuda_has_is_refused_on_a_cpu(change: dict[str, str]):
    cell = next(load_suite("vit").profile("cpu").cells("cpu"))
    check_cells([cell])
    changed = Cell.model_validate(cell.model_dump(by_alias=True) | change)
    with pytest.raises(FlopbenchError, match="exists on CUDA only"):
        check_cells([changed])


def test_inductor_for_each_operation_is_refused_in_a_compiled_network():
    cell = next(load_suite("vit").profile("cpu").cells("cpu")).model_copy(update={"impl": "inductor"})
    check_cells([cell.model_copy(update={"mode": "eager"})])
    with pytest.raises(FlopbenchError, match=r"^impl inductor .* mode compile-blocks .*--mode eager$"):
        check_cells([cell.model_copy(update={"mode": "compile-blocks"})])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"impl": "cpp"},
            "impl cpp cannot be exported: in mode onnxruntime use --impl auto, .* or --impl eager",
        ),
        ({"device": "cuda"}, "onnxruntime runs on cpu alone: choose another --mode"),
        ({"mode": "tensorrt"}, "tensorrt runs on cuda alone"),
        ({"dtype": "bf16"}, "onnxruntime has no bf16 on cpu: choose --dtype fp32 or int8"),
    ],
)
def test_what_an_engine_has_not_is_refused(change: dict[str, str], message: str):
    cell, *_ = small_suite(modes=["onnxruntime"], passes=["forward"]).profile("cpu").cells("cpu")
    check_cells([cell, cell.model_copy(update={"impl": "eager"})])
    with pytest.raises(FlopbenchError, match=message):
        check_cells([cell.model_copy(update=change)])


def test_run_json_says_nothing_personal(start):
    text = (start().path / "run.json").read_text()
    for secret in (str(Path.home()), os.uname().nodename):
        assert secret not in text
    assert json.loads(text)["environment"]["torch"]


def test_a_run_records_no_place_of_this_machine():
    given = [
        "run",
        "--suite",
        "/home/me/my.toml",
        "--reports=/home/me/out",
        "--results",
        "results",
        "--pair",
        "vit_s16.flop",
    ]
    assert recorded_command(given) == (
        "flopbench run --suite my.toml --reports=out --results results --pair vit_s16.flop"
    )


def test_workers_compute_with_the_threads_asked_for(environment, monkeypatch: pytest.MonkeyPatch):
    # Also where the server that they come from runs already.
    for threads in (1, 2):
        assert probe_environment("cpu", launcher(threads)).threads == threads
    assert probe_environment("cpu", launcher()).threads == environment.threads
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for count in (0, 5):
        with pytest.raises(
            FlopbenchError, match=f"^threads {count}: this machine has 4 cores, choose 1 to 4$"
        ):
            launcher(count)
