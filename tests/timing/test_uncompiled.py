"""What a compiler leaves out is named, by networks that each leave out one thing."""

import re
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flopbench.cells import Cell
from flopbench.models import foreign
from flopbench.pairs import Pair
from flopbench.private import graphs_not_captured
from flopbench.timing.bench import Bench
from flopbench.timing.uncompiled import compiled_again, flagged, left_out

# An operator of which nobody said what it returns.
torch.library.define("flopbench_tests::shapeless", "(Tensor x) -> Tensor")
torch.library.impl("flopbench_tests::shapeless", "cpu", lambda x: torch.tensor(x.tolist()))
shapeless = torch.ops.flopbench_tests.shapeless


@torch.library.custom_op("flopbench_tests::opaque", mutates_args=())
def opaque(x: Tensor) -> Tensor:
    """An operator of which the compiler knows the shape alone."""
    return x * 2


opaque.register_fake(torch.empty_like)


class Talkative(torch.autograd.Function):
    """A function of autograd's that no graph holds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        print("forward")
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 2


def prints(x: Tensor) -> Tensor:
    y = x + 1
    print("seen")
    return y * 2


def asks(x: Tensor) -> Tensor:
    return x * x.sum().item()


def branches(x: Tensor) -> Tensor:
    y = x + 1
    if y.sum() > 0:
        return y * 2
    return y


def loops(x: Tensor) -> Tensor:
    for _ in range(2):
        if x.sum() > 0:
            x = x * 2
    return x


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (prints, r"graph break, .*`print`.* \(test_uncompiled\.py:\d+: print\(\"seen\"\)\)"),
        (asks, r"graph break, .*item\(\).* \(test_uncompiled\.py:\d+: return x \* x\.sum\(\)\.item\(\)\)"),
        (branches, r"graph break, data-dependent branching \(test_uncompiled\.py:\d+: if y\.sum\(\) > 0:\)"),
        (loops, r"function left to Python, Data-dependent branching: "),
        (
            lambda x: Talkative.apply(x),
            r"graph break, .*`print`.* \(test_uncompiled\.py:\d+: print\(\"forward\"\)\)",
        ),
        (lambda x: shapeless(x) + 1, r"graph break, .*flopbench_tests.*shapeless.*test_uncompiled\.py"),
        (nn.LSTM(3, 4), "function left to Python, .*LSTM"),
    ],
    ids=["print", "item", "branch", "loop", "autograd", "operator", "lstm"],
)
def test_what_no_graph_holds_is_named_with_its_line(network: Any, reason: str):
    torch.compiler.reset()
    with left_out() as found:
        torch.compile(network, backend="eager", dynamic=False)(torch.ones(2, 3))
    assert any(re.search(reason, line) for line in found), found
    # Nothing of where files lie.
    assert not any(".py" in word and "/" in word for line in found for word in line.split()), found


def test_what_is_whole_leaves_nothing_out():
    with left_out() as found:
        torch.compile(nn.Linear(3, 2), backend="eager", dynamic=False)(torch.ones(2, 3))
    assert not found


class Counting(nn.Module):
    """Adds how often it was called: another program at each call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


def cell(baseline: Any, candidate: Any, **changes: Any) -> Cell:
    foreign.put({"baseline": baseline, "candidate": candidate})
    pair = Pair(baseline="python:baseline", candidate="python:candidate", perturb=False)
    fields = {"device": "cpu", "batch_size": 2, "pass": "forward", "dtype": "fp32", "mode": "compile"}
    return Cell.model_validate({"pair": pair, "image_size": (8, 8), **fields, **changes})


def test_operators_and_recompilations_are_found_in_the_first_calls():
    class Sorting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return opaque(x).sort(-1).values

    bench = Bench.of(cell(Sorting(), Counting()))
    for _ in range(2):
        # The second time inductor takes its code from the cache.
        torch.compiler.reset()
        bench.first_calls()
        found = bench.not_compiled["baseline"]
        assert {line: found[line] for line in sorted(found)} == {
            "operator aten::sort, for which inductor has no code": 1,
            "operator flopbench_tests::opaque, for which inductor has no code": 1,
        }
        (again,) = bench.not_compiled["candidate"]
        assert re.match(r"compiled again in the second call, no longer: .*calls", again)
    bench.warm_up(0.0)
    flags = [flag for flag in bench.sample(seconds=0.0).flags if flag.kind == "not compiled"]
    assert [flag.message.split(":")[0] for flag in flags] == ["baseline", "candidate"]


OURS = [
    pytest.param("vit_ti16", "compile-blocks", "forward", 2),
    *(
        pytest.param(network, "compile", "backward", 1, marks=pytest.mark.slow)
        for network in ("vit_ti16", "resmlp_t12", "convnext_iso_s")
    ),
]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize(("network", "mode", "pass_", "depth"), OURS)
def test_of_our_own_networks_everything_is_compiled(network: str, mode: str, pass_: str, depth: int):
    fields = {"device": "cpu", "batch_size": 2, "pass": pass_, "dtype": "fp32", "mode": mode}
    small = {"image_size": (32, 32), "num_classes": 4, "width": 96, "depth": depth}
    bench = Bench.of(Cell.model_validate({"pair": Pair.of(f"{network}.flop"), **fields, **small}))
    bench.first_calls()
    assert bench.not_compiled == {"baseline": Counter(), "candidate": Counter()}


def test_a_graph_that_is_not_captured_says_why():
    from torch._inductor.cudagraph_utils import log_cudagraph_skip_and_bump_counter

    before = graphs_not_captured()
    with left_out() as found:
        log_cudagraph_skip_and_bump_counter(
            "skipping cudagraphs due to mutated inputs (1 instances)\n  File x"
        )
    assert graphs_not_captured() == before + 1
    assert found == {"no CUDA graph, mutated inputs (1 instances)": 1}


def test_a_flag_names_the_first_reasons_and_counts_the_others():
    (flag,) = flagged("X", Counter({f"reason {i}": i for i in range(1, 7)}))
    assert (
        flag.message == "X: reason 1; reason 2 (2 times); reason 3 (3 times); reason 4 (4 times); and 2 more"
    )
    assert not [*flagged("X", {})]


def test_what_is_compiled_once_is_not_compiled_again():
    network, x = torch.compile(nn.Linear(3, 2), backend="eager", dynamic=False), torch.ones(2, 3)
    network(x)
    with compiled_again() as found:
        network(x)
    assert not found
