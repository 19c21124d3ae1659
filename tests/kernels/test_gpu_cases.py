"""What `pytest -m cuda` checks on a GPU is every kernel that there is."""

import sys
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from flopbench.kernels.measured import Row, read_rows
from tests.gpu import operations, table
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
