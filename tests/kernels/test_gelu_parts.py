"""The GELU of all parts of a feature in C++: what torch's gives in mirror pairs, and its gradient."""

import pytest
import torch

from flopbench.kernels.cpp.gelu import gelu_parts
from tests.kernels.agreement import PARTS, TOLERANCE, check_operator, gelus, in_cpp, normal

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# Less than a vector; several threads' chunks, and what is left over.
SHAPES = [(1, 3), (2, 5, 1000)]

gelu_parts_backward = in_cpp("gelu_parts_backward")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("parts", PARTS)
def test_values_and_gradients(instructions, parts, shape, dtype):
    x = [normal(*shape, dtype=dtype) for _ in range(parts)]
    wide = [part.detach().double().requires_grad_() for part in x]
    outputs, expected = gelu_parts(x), gelus(*wide)
    upstream = [torch.randn_like(part) for part in outputs]
    grads = torch.autograd.grad(outputs, x, upstream)
    wanted = torch.autograd.grad(expected, wide, [g.double() for g in upstream])
    for one, two in zip((*outputs, *grads), (*expected, *wanted), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), two, rtol=0, atol=TOLERANCE[dtype])


def test_gradient_in_single_precision(instructions):
    x = torch.linspace(-12, 12, 1 << 16)
    x[:3] = torch.tensor([0.0, 1e30, -1e30])
    (one,) = gelu_parts_backward([x], [torch.ones_like(x)])
    exact = torch.ops.aten.gelu_backward(torch.ones_like(x).double(), x.double())
    torch.testing.assert_close(one.double(), exact, rtol=1e-6, atol=4e-7)
    special = torch.tensor([torch.nan])
    assert gelu_parts_backward([special], [torch.ones(1)])[0].isnan().all()


def test_operators(cpp_compiler):
    x, grads = ([normal(3, 20).detach() for _ in range(2)] for _ in range(2))
    check_operator(torch.ops.flopbench.gelu_parts.default, [part.requires_grad_() for part in x])
    check_operator(torch.ops.flopbench.gelu_parts_backward.default, [part.detach() for part in x], grads)


X = torch.ones(3, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([X] * 3, "1, 2 or 4 parts, got 3"),
        ([X] * 8, "1, 2 or 4 parts, got 8"),
        ([X, X[:2]], r"parts of shape \[3, 16\], got \[2, 16\]"),
        ([X, X.double()], "tensors of Float on a CPU, got one of Double"),
        ([X.int()], "fp32 or fp64, got Int"),
    ],
)
def test_what_does_not_fit_is_refused(cpp_compiler, given, message):
    with pytest.raises(RuntimeError, match=message):
        gelu_parts(given)
    with pytest.raises(RuntimeError, match=message):
        gelu_parts_backward(given, given)


def test_gradients_that_do_not_fit_are_refused(cpp_compiler):
    for grads in ([X], [X, X[:, :8]], [X, X.double()]):
        with pytest.raises(RuntimeError, match="got"):
            gelu_parts_backward([X, X], grads)


def test_nothing(cpp_compiler):
    assert gelu_parts([X[:0]] * 2)[1].shape == (0, 16)


def test_any_layout(cpp_compiler):
    s, a = torch.randn(4, 30).T, torch.randn(30, 8)[:, ::2]
    for one, two in zip(gelu_parts([s, a]), gelus(s, a), strict=True):
        torch.testing.assert_close(one, two)
