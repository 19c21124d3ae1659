"""Depthwise convolutions: whichever way the gradients are computed, they are torch's."""

import pytest
import torch
from torch.autograd import gradcheck

from flopbench.kernels.cpp import depthwise as kernels
from flopbench.kernels.depthwise import depthwise
from flopbench.symmetries import FLOP, PLAIN, Halves
from tests.kernels.agreement import TOLERANCE, check_operator, normal

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# Batch, rows, columns, channels, taps in a row: part of a vector, several vectors, more taps than at once;
# bands of rows, and rows of which a band has but one.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 5, 3, 7, 3),
    (1, 14, 14, 40, 7),
    (3, 4, 6, 16, 11),
    (2, 101, 40, 3, 3),
    (2, 45, 96, 3, 5),
    (1, 4, 4000, 1, 3),
]


def inputs(batch, rows, columns, channels, taps, dtype=torch.float64):
    shapes = (batch, rows, columns, channels), (channels, 1, taps, taps), (channels,)
    return [normal(*shape, dtype=dtype) for shape in shapes]


def by_operator(output):
    """Whether ours computed it, whose gradient is in C++."""
    return "flopbench_depthwise" in type(output.grad_fn).__name__


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("contiguous", [False, True])
def test_gradients(no_triton, shape, dtype, contiguous):
    given = inputs(*shape, dtype=dtype)
    results = {}
    for impl in ("fused", "eager"):
        tensors = [x.detach().to(torch.float64 if impl == "eager" else dtype).requires_grad_() for x in given]
        output = depthwise(*tensors, contiguous=contiguous, impl=impl)
        assert (by_operator(output)) is (impl == "fused")
        grad = torch.ones_like(output).cumsum(1).cos()
        results[impl] = [output, *torch.autograd.grad(output, tensors, grad)]
    for one, two in zip(results["fused"], results["eager"], strict=True):
        scale = max(1.0, two.abs().max().item())
        torch.testing.assert_close(one.double(), two, rtol=0, atol=scale * TOLERANCE[dtype])


def test_gradcheck_and_operator(no_triton):
    given = inputs(1, 3, 4, 2, 3)
    assert gradcheck(lambda *args: depthwise(*args, impl="fused"), given)
    # Only what is asked for; features of a frozen network, no bias.
    x, kernel, _ = given
    assert gradcheck(lambda kernel: depthwise(x.detach(), kernel, None, impl="fused"), kernel)
    x = normal(2, 5, 3, 4).detach().transpose(1, 2)
    for contiguous in (False, True):
        single = inputs(1, 3, 4, 2, 3, torch.float32)
        check_operator(torch.ops.flopbench.depthwise.default, *single, contiguous)
    check_operator(torch.ops.flopbench.depthwise_weight_gradient.default, x, torch.randn_like(x), 3)


X = torch.ones(2, 4, 5, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((X, X[:, :3], 3), r"gradients of shape \[2, 4, 5, 3\], got \[2, 3, 5, 3\]"),
        ((X[0], X[0], 3), r"features \[batch, rows, columns, channels\]"),
        ((X, X.double(), 3), "tensors of Float on a CPU, got one of Double"),
        ((X.half(), X.half(), 3), "fp32 or fp64, got Half"),
        ((X, X, 4), "an odd size of the kernel, got 4"),
        ((X, X, -1), "an odd size of the kernel, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(cpp_compiler, given, message):
    with pytest.raises(RuntimeError, match=message):
        kernels.weight_gradient(*given)


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (3, 1, 3, 5), (2, 1, 3, 3)])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_kernels_that_do_not_fit_are_refused(cpp_compiler, shape, device):
    with pytest.raises(ValueError, match=r"kernels \[3, 1, K, K\] of odd K, got"):
        kernels.depthwise(X.to(device), torch.ones(shape, device=device), None, False)


def test_of_nothing_the_gradient_is_zero(cpp_compiler):
    for x in (X[:0], X[:, :0]):
        assert kernels.weight_gradient(x, x, 3).equal(torch.zeros(3, 1, 3, 3))


def test_autocast_and_inference_keep_to_the_convolution(no_triton):
    given = inputs(1, 3, 4, 2, 3, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = depthwise(*given, impl="fused")
    assert output.dtype == torch.bfloat16
    for other in (depthwise(*given), depthwise(given[0], given[1].detach(), None, impl="fused"), output):
        assert not by_operator(other)


@pytest.mark.parametrize("symmetry", [PLAIN, FLOP])
def test_layers_compiled_whole(no_triton, symmetry):
    layer = symmetry.depthwise(8, 3, "contiguous")
    parts = [normal(2, 4, 5, 8 if symmetry is PLAIN else 4, dtype=torch.float32) for _ in range(2)]
    leaves = parts if symmetry is FLOP else parts[:1]
    x = Halves(*parts) if symmetry is FLOP else parts[0]
    called = []
    operator = torch.ops.flopbench.depthwise_weight_gradient
    results = []
    for run in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        output = run(x)
        outputs = [output] if symmetry is PLAIN else output
        loss = torch.cat([part.square().flatten() for part in outputs]).sum()
        with torch.profiler.profile(acc_events=True) as profile:
            results.append(torch.autograd.grad(loss, [*leaves, *layer.parameters()]))
        called.append(any(event.key == operator.default.name() for event in profile.key_averages()))
    assert called == [False, True]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
