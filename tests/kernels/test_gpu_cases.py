"""What `pytest -m cuda` checks on a GPU is every kernel that there is."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from flopbench.kernels.measured import Row, read_rows
from tests.gpu import operations, summary, table
from tests.gpu.cases import CASES, Inputs, Size, outputs_of


def kernels_of(module: ModuleType) -> set[str]:
    return {name for name in vars(module) if name.endswith("_kernel")}


def test_every_kernel_has_a_case_on_a_gpu(device, monkeypatch):
    launched = set()

    def launch(kernel: Any, *_: Any, **__: Any) -> None:
        # An autotuned one has it within.
        launched.add(getattr(kernel, "fn", kernel).__name__)

    room = "flopbench.kernels.triton"
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{room}.")]
    for module in modules:
        monkeypatch.setattr(module, "launch", launch, raising=False)
    given = Inputs(Size(32, 5, 2), strided=False, batch=2, device=device.type)
    for case in CASES.values():
        tensors = [x.float().requires_grad_(case.backward) for x in case.inputs(given)]
        outputs = outputs_of(case, "triton", given.size, tensors)
        if case.backward:
            torch.autograd.grad(outputs, tensors, [torch.ones_like(y) for y in outputs])
    assert launched == set().union(*map(kernels_of, modules))


def test_the_table_is_made_of_what_a_gpu_measures(device, monkeypatch):
    """Each case asks the table of its own operation, and is run each way."""
    took = iter(range(1, 1000))

    def median_time(call: Any) -> float:
        call()
        return float(next(took))

    monkeypatch.setattr(operations, "median_time", median_time)
    monkeypatch.setattr(torch, "compile", lambda run, **_: run)
    size = Size(32, 5, 2)
    for name, case in CASES.items():
        if not case.timed:
            continue
        given = Inputs(size, False, 2, device.type)
        inputs = operations.low(case, given)
        asked = operations.asked_of(case, size, inputs)
        assert (asked.operation, asked.elements) == (name.split()[0], inputs[0].numel())
        for gradients in {False, case.backward}:
            eager, compiled = operations.rows_of(case, given, gradients=gradients)
            assert [eager.compiled, compiled.compiled] == [False, True]
            assert [eager.gradients, compiled.gradients] == 2 * [gradients]
            assert (eager.parts, eager.dtype) == (asked.parts, "bfloat16")
            # Each in its turn.
            ways = ["triton", "torch", *["batched"] * case.batched]
            assert list(eager.ms) == ways[:2]
            assert set(compiled.ms) == set(ways)
            assert compiled.ms["torch"] == eager.ms["torch"] + 1 + case.batched


def test_new_rows_take_the_place_of_old_ones(tmp_path: Path):
    old = Row("NVIDIA A", "2026-01-01", "2.13.0", "gelu", 2, "bfloat16", False, False, 64, {"torch": 1.0})
    new, other = replace(old, date="2026-02-01"), replace(old, card="NVIDIA B")
    found, written = tmp_path / "operations.jsonl", tmp_path / "measured.json"
    written.write_text(table.as_text([other, old]))
    found.write_text(dumps(asdict(new)) + "\n")
    table.main([str(found)], written)
    assert list(read_rows(written)) == [new, other]
    found.write_text(dumps(asdict(replace(new, card="cpu"))))
    with pytest.raises(SystemExit, match="interpreter"):
        table.main([str(found)], written)
    assert list(read_rows(written)) == [new, other]
    written.write_text(table.as_text([]))
    assert list(read_rows(written)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "operations.jsonl cannot be read: No such file or directory"),
        ("{}\n", "operations.jsonl, line 1, is no row of .*: .*card: field required"),
        ('\n{"card": "NVI', "operations.jsonl, line 2, is no row of .*: invalid JSON"),
        ("title = 1", "operations.jsonl, line 1, is no row of .*: invalid JSON"),
        (b"\xff", "operations.jsonl cannot be read: it is no text"),
    ],
)
def test_what_no_gpu_measured_is_one_line_and_changes_nothing(tmp_path: Path, text, said: str):
    found, written = tmp_path / "operations.jsonl", tmp_path / "measured.json"
    written.write_text("[]\n")
    if text is not None:
        found.write_bytes(text if isinstance(text, bytes) else text.encode())
    for paths, expected in (([str(found)], said), ([], "operations.jsonl")):
        with pytest.raises(SystemExit, match=expected) as problem:
            table.main(paths, written)
        assert "\n" not in str(problem.value)
    assert written.read_text() == "[]\n"


HALF = {"add+norm": "halves triton", "attention": "halves triton", "linear+gelu": "triton epilogue"}


def a_block(size: str) -> Iterator[dict[str, Any]]:
    """X takes 10 ms for each of a block's seven pieces, E(X) 6 in the faster of two ways, or 4 stacked."""
    for piece in summary.BLOCK:
        ours = HALF.get(piece, "two products")
        for way, ms in (("dense", 10.0), (ours, 6.0), (f"{ours}, slower", 7.0)):
            yield {"size": size, "batch": 64, "piece": piece, "way": way, "ms": ms}
        if piece not in HALF:
            yield {"size": size, "batch": 64, "piece": piece, "way": "one batched", "ms": 4.0}


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A folder of what a GPU measured: all of a block of ViT-S, half of one of ViT-B, one operation."""
    rows = [
        {"piece": "product", "way": "library", "ms": 1.5, "tflops": 700.5},
        *a_block("S"),
        *list(a_block("B"))[:8],
        {"size": "B", "batch": 64, "piece": "norm", "way": "triton", "error": "RuntimeError: no"},
    ]
    (tmp_path / "microbench.jsonl").write_text("\n".join(map(dumps, rows)))
    one = Row("NVIDIA A", "2026-01-01", "2.13.0", "gelu", 2, "bfloat16", False, False, 64, {"torch": 0.1})
    both = [replace(one, ms={"torch": 0.1, "triton": 0.02}), replace(one, compiled=True, ms={"torch": 0.03})]
    (tmp_path / "operations.jsonl").write_text("\n".join(dumps(asdict(row)) for row in both))
    return tmp_path


def test_what_a_gpu_measured_is_a_report(measured: Path, capsys: pytest.CaptureFixture[str]):
    summary.main([str(measured)])
    text = capsys.readouterr().out
    assert "card: NVIDIA A, torch: 2.13.0, 2026-01-01" in text
    assert "- product 700.5 TFLOP/s" in text
    # 70 ms over 42, then over 42 less 2 for each of three maps; 12·384 + 394 MACs over 6·384 + 394.
    lines = [line for line in text.splitlines() if line.startswith("| S | 64 | apart | 70000")]
    assert lines == ["| S | 64 | apart | 70000.0 | 42000.0 | 1.67 | 1.85 | 78 % |"]
    assert "| S | 64 | stacked | 70000.0 | 36000.0 | 1.94 | 1.85 | 111 % |" in text
    stacked = "one batched | halves triton | one batched | triton epilogue | one batched |"
    assert f"| S | 64 | stacked | halves triton | {stacked}" in text
    # Half a block has no sum.
    assert "| B | 64 | apart" not in text
    assert "| size | batch | piece | dense | two products | two products, slower | one batched |" in text
    assert "| B | 64 | qkv | 10000.0 | 6000.0 | 7000.0 | 4000.0 |" in text
    assert "| gelu | 2 | 64 | no | 100.0 | 30.0 | 20.0 |" in text
    assert "- B 64 norm triton RuntimeError: no" in text


def test_a_report_names_the_machine_whose_log_is_there(measured: Path, tmp_path: Path):
    log = 'Driver\n{"device_name": "NVIDIA B", "driver": "580", "cpu": null}\n2.11.0 True'
    (measured / "machine.log").write_text(log)
    summary.main([str(measured), "--out", str(tmp_path / "report.md")])
    text = (tmp_path / "report.md").read_text()
    assert "- card: NVIDIA B\n- driver: 580\n- product" in text


def test_what_is_no_measurement_is_one_line(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"none of microbench\.jsonl, operations\.jsonl, gradients\.jsonl$"):
        summary.main([str(tmp_path)])
    (tmp_path / "microbench.jsonl").write_text('{"size": "S", "batch": 64}\n')
    with pytest.raises(SystemExit, match=r"microbench\.jsonl, line 1, is no row of `python -m tests\.gpu"):
        summary.main([str(tmp_path)])
