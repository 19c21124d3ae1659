"""What `auto` runs on a GPU goes by a table of measurements; here it is a stand-in, and so is the GPU."""

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from flopbench.errors import FlopbenchError
from flopbench.kernels import dispatch, measured
from flopbench.kernels.dispatch import choose, observe
from flopbench.kernels.gelu import GELU
from flopbench.kernels.layer_norm import LAYER_NORM
from flopbench.kernels.linear import LINEAR, Maps
from flopbench.kernels.measured import Row, read_rows, size_class
from flopbench.kernels.transform import HALVES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CARD = "NVIDIA Stand-in"


def row(operation: str, torch_ms: float, triton_ms: float, **changed: Any) -> Row:
    known = {
        "card": CARD,
        "date": "2026-01-02",
        "torch": "2.13.0",
        "operation": operation,
        "parts": 2,
        "dtype": "bfloat16",
        "compiled": False,
        "gradients": False,
        "elements": 4096,
        "ms": {"torch": torch_ms, "triton": triton_ms},
    }
    return Row(**(known | changed))


ROWS = [
    row("layer_norm", 3.0, 2.0),
    row("layer_norm", 1.0, 2.0, compiled=True),
    row("linear", 2.0, 3.0),
    # Three of like size: one decision, by what they take together.
    row("gelu", 1.0, 2.0, elements=5000),
    row("gelu", 4.0, 1.0, elements=16000),
    row("gelu", 2.0, 1.0, elements=16000, compiled=True),
    row("gelu", 1.0, 1.5, gradients=True, date="2026-01-03"),
]


@pytest.fixture(autouse=True)
def table(monkeypatch, tmp_path):
    """A table of our own, and a card that it is of."""
    file = tmp_path / "measured.json"
    file.write_text(json.dumps([asdict(one) for one in ROWS]))
    monkeypatch.setattr(measured, "TABLE", file)
    monkeypatch.setattr(measured, "_card", lambda device: CARD)
    monkeypatch.setattr(dispatch, "_load", lambda: (None, True))
    monkeypatch.setattr(dispatch, "_interpreted", lambda: True)
    measured._look_up.cache_clear()
    yield file
    measured._look_up.cache_clear()


def features(elements: int = 4096, dtype: torch.dtype = torch.bfloat16, **options: Any) -> list[torch.Tensor]:
    return [torch.empty(elements // 64, 64, dtype=dtype, **options) for _ in range(2)]


def on_a_gpu(operation: Any, *given: Any, impl: Any = "auto", **options: Any) -> tuple[str, str]:
    """What runs uncompiled on a fake GPU, and why."""
    with FakeTensorMode():
        return choose(operation, impl, features(device="cuda", **options), *given)


def linear(**options: Any) -> tuple[str, str]:
    with FakeTensorMode():
        weights = features(device="cuda")
    return on_a_gpu(LINEAR, Maps(weights, (0, 1), [None, None]), **options)


def test_the_fastest_is_chosen_and_the_record_says_why():
    assert on_a_gpu(LAYER_NORM) == (
        "triton",
        f"auto: 50% faster than torch on {CARD}, 2026-01-02, torch 2.13.0",
    )
    name, why = linear()
    assert (name, why.split(";")[0]) == (
        "torch",
        f"triton: 33% slower than torch on {CARD}, 2026-01-02, torch 2.13.0",
    )


@pytest.mark.parametrize(
    ("ms", "chosen", "why"),
    [
        ({"torch": 3.0, "triton": 2.0, "batched": 4.0}, "triton", "50% faster than torch"),
        ({"torch": 3.0, "triton": 2.0, "batched": 1.0}, "batched", "100% faster than triton"),
        ({"torch": 1.0, "triton": 2.0, "batched": 4.0}, "torch", "50% slower than torch"),
        ({"torch": 4.0, "triton": 2.0}, "triton", "100% faster than torch"),
        ({"torch": 4.0, "batched": 2.0}, "batched", "100% faster than torch"),
    ],
)
def test_the_fastest_of_three_ways_is_chosen(table, monkeypatch, ms, chosen, why):
    table.write_text(json.dumps([asdict(row("linear", 0, 0, ms=ms, compiled=True))]))
    # A stand-in where a compiler traces, for there alone products are batched.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(dispatch, "_exporting", lambda: False)
    name, said = linear()
    assert name == chosen
    assert f"{why} on {CARD}" in said


def test_times_of_like_sizes_add_up():
    name, why = on_a_gpu(GELU, HALVES, "gelu")
    assert (name, why.split(",")[0]) == ("triton", f"auto: 67% faster than torch on {CARD}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": torch.float32}, f"not measured on {CARD} in float32, 2 parts"),
        ({"elements": 64}, f"not measured on {CARD} at this size"),
        ({"elements": 1 << 20}, f"not measured on {CARD} at this size"),
        ({"requires_grad": True}, f"not measured on {CARD} in bfloat16, 2 parts, with gradients"),
    ],
)
def test_what_was_not_measured_is_left_to_torch(options, said):
    name, why = on_a_gpu(LAYER_NORM, **options)
    assert (name, why.split(";")[0]) == ("torch", f"triton: {said}")
    # Who asks for fused kernels takes what there is.
    assert on_a_gpu(LAYER_NORM, impl="fused", **options) == ("triton", f"fused: {said}")


def test_gradients_have_times_of_their_own():
    assert on_a_gpu(GELU, HALVES, "gelu", requires_grad=True)[0] == "torch"
    with torch.no_grad():
        assert on_a_gpu(GELU, HALVES, "gelu", requires_grad=True)[0] == "triton"


def test_another_card_is_no_evidence(monkeypatch):
    monkeypatch.setattr(measured, "_card", lambda device: "NVIDIA Other")
    assert on_a_gpu(LAYER_NORM)[0] == "torch"
    assert "triton: not measured on NVIDIA Other" in on_a_gpu(LAYER_NORM)[1]


def test_what_is_slower_runs_by_name_alone():
    assert linear(impl="fused")[0] == "torch"
    assert linear(impl="triton") == ("triton", "asked for")
    assert linear(impl="eager") == ("torch", "asked for")


@pytest.mark.parametrize("dynamic", [False, True])
def test_where_a_compiler_traces_the_table_is_that_of_compiled_networks(dynamic):
    @torch.compile(backend="eager", fullgraph=True, dynamic=dynamic)
    def network(x, y):
        choose(LAYER_NORM, "auto", (x, y))
        choose(GELU, "auto", (x, y), HALVES, "gelu")
        return x + y

    with observe() as ran, torch.no_grad():
        network(*features(16000))
        # Of another size, so it is looked up again.
        network(*features(1600000))
    # Each is the first reason: of the first size.
    assert list(ran["layer_norm"]) == ["torch"]
    assert ran["layer_norm"]["torch"].startswith(f"triton: 50% slower than torch on {CARD}, 2026-01-02")
    assert ran["gelu"]["triton"] == f"auto: 100% faster than torch on {CARD}, 2026-01-02, torch 2.13.0"
    assert ran["gelu"]["torch"].startswith(f"triton: not measured on {CARD} at this size")


def test_what_is_exported_keeps_to_torch():
    class Network(torch.nn.Module):
        def forward(self, x, y):
            choose(GELU, "auto", (x, y), HALVES, "gelu")
            return x + y

    rows = torch.export.Dim("rows", min=2)
    with observe() as ran, torch.no_grad():
        torch.export.export(Network(), tuple(features(16000)), dynamic_shapes=[{0: rows}] * 2)
    assert list(ran["gelu"]) == ["torch"]
    assert "what is exported keeps to torch's own" in ran["gelu"]["torch"]


def test_sizes():
    assert [size_class(n) for n in (0, 1, 3, 4, 15, 16, 1 << 20)] == [0, 1, 1, 2, 2, 3, 11]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"card": "NVI', "measured.json: invalid JSON: EOF"),
        ('[{"card": "NVIDIA"}]', r"measured.json: \[0\].date: field required"),
        ("3", "measured.json: input should be a valid array, got 3"),
        (None, "measured.json cannot be read: No such file"),
    ],
)
def test_what_is_no_table_is_one_line(table, text, said):
    table.unlink() if text is None else table.write_text(text)
    with pytest.raises(FlopbenchError, match=f"^{said}.*; install flopbench again, or write .* into .*$"):
        on_a_gpu(LAYER_NORM)


def test_the_table_that_is_shipped_is_one(monkeypatch):
    monkeypatch.undo()
    rows = list(read_rows(measured.TABLE))
    assert len({(*list(asdict(row).values())[:9],) for row in rows}) == len(rows)
    assert all(min(row.ms.values(), default=0) > 0 and "torch" in row.ms for row in rows)
