"""Operators of kernels that Python launches: called at once, and through torch where somebody looks on."""

import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from flopbench.kernels.operator import operator
from flopbench.private import TorchDispatchMode
from tests.kernels.agreement import check_operator, normal

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning"),
]

dispatched: list[bool] = []
"""For each launch whether it came through torch's dispatcher."""


def like(parts, *_):
    return [x.new_empty(x.shape) for x in parts]


def save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[0], inputs[1])
    assert [len(output), inputs[2]] == [len(inputs[0]), 3.0]


def gradient(ctx, grads) -> Any:
    *parts, weight = ctx.saved_tensors
    for_parts, for_weight, _ = ctx.needs_input_grad
    assert len(for_parts) == len(parts)
    of_weight = None
    if for_weight:
        of_weight = 3 * torch.stack([(g * x).sum() for g, x in zip(grads, parts, strict=True)]).sum(0, True)
    return scaled_for_test(list(grads), weight, 3.0), of_weight, None


@operator(fake=like, save=save, gradient=gradient)
def scaled_for_test(parts: list[Tensor], weight: Tensor, factor: float) -> list[Tensor]:
    """Each part times weight times factor; NumPy computes it, which autograd knows nothing of."""
    dispatched.append(any(frame.filename.endswith("torch/_ops.py") for frame in traceback.extract_stack()))
    return [torch.from_numpy(x.detach().numpy() * weight.detach().numpy() * factor) for x in parts]


@operator(fake=like)
def negated_for_test(parts: list[Tensor]) -> list[Tensor]:
    """What has no gradient."""
    return [torch.from_numpy(-x.detach().numpy()) for x in parts]


@pytest.fixture(autouse=True)
def nothing_launched():
    dispatched.clear()


class Sees(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Changes(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Own(Tensor):
    pass


def test_without_gradients_nothing_lies_between():
    parts = [torch.randn(3, 2), nn.Parameter(torch.randn(3, 2))]
    with torch.no_grad():
        got = scaled_for_test(parts, torch.tensor(2.0), 3.0)
    torch.testing.assert_close(got, [6 * x.detach() for x in parts])
    assert not any(x.requires_grad for x in got)
    assert dispatched == [False]


def test_gradients_without_the_dispatcher_are_those_with_it():
    results = []
    for call in (scaled_for_test, torch.ops.flopbench.scaled_for_test.default):
        torch.manual_seed(0)
        given = [normal(3, 2), normal(3, 2), torch.randn(3, 2), normal(1)]
        got = call(given[:3], given[3], 3.0)
        leaves = [given[0], given[1], given[3]]
        # Nothing was made of the last output.
        loss = got[0].sum() + got[1].square().sum()
        torch.autograd.grad(loss, leaves, retain_graph=True)
        results.append([*got, *torch.autograd.grad(loss, leaves)])
        if call is scaled_for_test:
            assert dispatched == [False] * 3
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # torch's own, of its decompositions
def test_tangents_are_not_lost_in_silence():
    x, weight = normal(2).detach(), torch.ones(())
    message = "has no forward gradient; use impl='eager'"
    with pytest.raises(RuntimeError, match=message):
        torch.func.jvp(lambda x: scaled_for_test([x], weight, 3.0)[0], (x,), (x,))
    with forward_ad.dual_level():
        assert torch.equal(scaled_for_test([x], weight, 3.0)[0], 3 * x)
        with pytest.raises(RuntimeError, match=message):
            scaled_for_test([forward_ad.make_dual(x, x)], weight, factor=3.0)


def test_what_has_no_gradient_says_so():
    x = normal(2)
    with torch.no_grad():
        assert torch.equal(negated_for_test([x])[0], -x)
    with pytest.raises(RuntimeError, match="has no gradient; use impl='eager'"):
        negated_for_test([x])[0].sum().backward()
    # Nor has what a gradient is computed by.
    (grad,) = torch.autograd.grad(
        scaled_for_test([x], torch.ones(()), 3.0)[0].square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="has no gradient"):
        torch.autograd.grad(negated_for_test([grad])[0].sum(), x)


@pytest.mark.parametrize(
    "within",
    [
        Sees,
        Changes,
        lambda: torch.profiler.profile(acc_events=True),
        lambda: torch.autograd.profiler.profile(),
    ],
    ids=["dispatch mode", "function mode", "profiler", "autograd's profiler"],
)
@pytest.mark.parametrize("graded", [False, True])
def test_who_looks_on_sees_one_operator(within: Callable[[], Any], graded: bool):
    x = normal(2).requires_grad_(graded)
    with within() as looking:
        (y,) = scaled_for_test([x], torch.ones(()), 3.0)
    assert dispatched == [True]
    assert y.requires_grad is graded
    if isinstance(looking, Sees):
        assert "flopbench.scaled_for_test.default" in looking.seen
    elif not isinstance(looking, Changes):
        assert "flopbench::scaled_for_test" in [event.key for event in looking.key_averages()]


def test_tensors_of_other_kinds_go_through_torch():
    with torch.no_grad():
        (shape,) = scaled_for_test([torch.empty(2, 3, device="meta")], torch.empty((), device="meta"), 3.0)
        assert (shape.device.type, shape.shape, dispatched) == ("meta", (2, 3), [])
        scaled_for_test([torch.ones(2).as_subclass(Own)], torch.ones(()), 3.0)
    assert dispatched == [True]


def test_traces_hold_the_operator():
    def network(x):
        return scaled_for_test([x], torch.ones(()), 3.0)[0]

    x = torch.randn(3)
    traced = torch.jit.trace(network, x, check_trace=False)
    assert "flopbench::scaled_for_test" in str(traced.graph)  # pyright: ignore[reportAttributeAccessIssue]
    assert dispatched.pop() is True
    torch.testing.assert_close(torch.func.functionalize(network)(x), 3 * x)
    assert dispatched == [True]


@pytest.mark.parametrize("graded", [False, True])
def test_compilers_and_exporters_take_it_whole(graded):
    class Layer(nn.Module):
        def forward(self, x):
            return scaled_for_test([x, 2 * x], x.detach().sum(), 3.0)[1]

    x = normal(3).requires_grad_(graded)
    with nullcontext() if graded else torch.no_grad():
        compiled = torch.compile(Layer(), fullgraph=True, backend="aot_eager")
        got, expected = compiled(x), Layer()(x)
    torch.testing.assert_close(got, expected)
    if graded:
        torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x) for y in (got, expected)))
    exported = torch.export.export(Layer(), (x.detach(),))
    assert "flopbench.scaled_for_test.default" in [str(node.target) for node in exported.graph.nodes]


def test_operators():
    check_operator(torch.ops.flopbench.scaled_for_test.default, [normal(3), normal(3)], normal(1), 3.0)
