"""What a sweep says while it runs: what to expect, and how long it takes yet."""

import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from flopbench.cells import Cell
from flopbench.pairs import Pair
from flopbench.results import CellRecord
from flopbench.runner.progress import LogProgress, Pace, progress_for
from flopbench.suites import load_suite
from tests.support.runs import make_run


def cell(pair: str = "vit_s16.flop", mode: str = "eager", pass_: str = "forward", batch: int = 64) -> Cell:
    fields = {"pair": Pair.of(pair), "device": "cuda", "batch_size": batch, "dtype": "bf16", "mode": mode}
    return Cell.model_validate({**fields, "pass": pass_})


def record(of: Cell, compiling: float = 0.0, status: str = "ok") -> CellRecord:
    phases = {"compile": compiling, "sampling": 3.0}
    fields = {"cell": of, "status": status, "started": "now", "wall_seconds": 1.0, "phases": phases}
    return CellRecord.model_validate(fields)


def test_nothing_is_expected_of_a_mode_before_one_of_its_cells_is_done():
    pace = Pace()
    pace.finished(record(cell()), 10)
    assert pace.remaining([cell("vit_b16.flop")]) == 10
    assert pace.remaining([cell("vit_b16.flop"), cell(mode="compile")]) is None
    pace.finished(record(cell(mode="compile"), status="oom"), 10)
    assert pace.remaining([cell(mode="compile")]) is None


@pytest.mark.parametrize(
    ("mode", "seconds"),
    # ViT-S has 12 blocks, ViT-L 24.
    [("compile", 5 + 2 * 24), ("compile-blocks", 5 + 24)],
)
def test_what_has_more_blocks_compiles_longer(mode: str, seconds: float):
    pace = Pace()
    pace.finished(record(cell(mode=mode), compiling=24), 29)
    assert pace.remaining([cell("vit_l16.flop", mode)]) == pytest.approx(seconds)
    assert pace.remaining([cell(mode=mode)] * 2) == pytest.approx(2 * 29)
    # A backward pass that was compiled says more of others than a forward pass.
    pace.finished(record(cell(mode=mode, pass_="backward"), compiling=60), 65)
    assert pace.remaining([cell(mode=mode, pass_="backward")]) == pytest.approx(65)


def test_compiling_beforehand_is_expected_of_what_is_not_compiled_yet():
    pace = Pace()
    done, next_, later = (cell(mode="compile", batch=batch) for batch in (64, 256, 1))
    pace.compiled([done, next_], 40)
    pace.finished(record(done, compiling=4), 10)
    assert pace.remaining([next_]) == pytest.approx(10)
    assert pace.remaining([next_, later]) == pytest.approx(2 * 10 + 20)


def test_a_log_says_once_what_to_expect(tmp_path: Path):
    info = {"profile": load_suite("vit").profile("cuda")}
    run = make_run(tmp_path / "run", pairs=("vit_s16.flop",), batch_sizes=(64,), info=info)
    out = StringIO()
    log = LogProgress(Console(file=out, width=300))
    cells = [cell(), cell(mode="compile"), cell(mode="compile", batch=1)]
    log.begin(run, cells, 1)
    log.report("beforehand", tuple(cells[1:]))
    expected = "4 cells on NVIDIA H200, 1 of them already measured, 2 to compile, at most 9:30"
    title, compiling = out.getvalue().splitlines()
    assert title == f"Vision transformers: {expected}: what does not fit is skipped"
    assert compiling == "compiling 2 cells beforehand, in as many processes"


def test_a_log_says_what_is_exported_and_which_engine_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flopbench.engines.needs.find_spec", lambda name: None)
    run = make_run(tmp_path / "run", pairs=("vit_s16.flop",), batch_sizes=(64,))
    out = StringIO()
    engines = [cell(mode="tensorrt"), cell(mode="tensorrt", batch=1), cell(mode="aot-inductor")]
    LogProgress(Console(file=out, width=300)).begin(run, [cell(mode="compile"), *engines], 0)
    *warnings, title = out.getvalue().splitlines()
    assert (
        "2 of 4 cells will fail: tensorrt needs onnx, onnxscript, tensorrt: pip install 'flopbench[tensorrt]'"
    ) in warnings
    assert title.endswith("1 to compile, 3 to export")


def test_exporting_takes_longer_the_more_blocks_there_are():
    pace = Pace()
    done = record(cell(mode="aot-inductor")).model_copy(update={"phases": {"export": 24.0}})
    pace.finished(done, 29)
    assert pace.remaining([cell("vit_l16.flop", "aot-inductor")]) == pytest.approx(5 + 2 * 24)


def test_a_notebook_has_one_output_that_ends_with_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown: list[list[str]] = []

    class Display:
        def update(self, text: object) -> None:
            shown[-1].append(repr(text))

    def display(text: object, display_id: bool) -> Display:
        assert display_id
        shown.append([repr(text)])
        return Display()

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    run = make_run(tmp_path / "run", pairs=("vit_s16.flop",), batch_sizes=(64,))
    console = Console(file=StringIO(), force_jupyter=True)
    with progress_for(console) as progress:
        progress.begin(run, [cell()], 0)
        progress.cell(cell())
        progress.report("phase", "sampling")
        progress.finished(record(cell()))
    (output,) = shown
    assert any("[1/1] E(ViT-S/16), batch 64, forward, bf16, eager … " in text for text in output[:-1])
    title, line = output[-1].splitlines()
    assert title.startswith(f"{run.info.title}: 1 cell on ")
    assert line.startswith("[1/1] E(ViT-S/16)")
    quiet = Console(file=StringIO(), force_jupyter=True, quiet=True)
    assert type(progress_for(quiet)) is LogProgress
