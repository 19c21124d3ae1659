"""The GELU of all parts of a feature in C++: what torch's gives in a transform, and its gradient."""

import pytest
import torch

from flopbench.kernels.cpp import load
from flopbench.kernels.cpp.gelu import gelu_parts
from flopbench.kernels.gelu import pointwise_parts
from flopbench.kernels.transform import HALVES, POINT, QUARTERS, Transform
from flopbench.symmetries import OCTIC
from tests.kernels.agreement import TOLERANCE, check_operator, in_cpp, normal

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# Less than a vector; several threads' chunks, and what is left over.
SHAPES = [(1, 3), (2, 5, 1000)]
TRANSFORMS = [POINT, HALVES, QUARTERS, OCTIC.transform, Transform((3, 1), (2, 0, 3, 1), (-1, 1, 1, -1))]

gelu_parts_backward = in_cpp("gelu_parts_backward")


def points(transform):
    """As operators take it."""
    return transform.slices, transform.order, transform.signs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_values_and_gradients(instructions, transform, shape, dtype):
    *rows, width = shape
    x = [normal(*rows, count * width, dtype=dtype) for count in transform.slices]
    wide = [part.detach().double().requires_grad_() for part in x]
    outputs, expected = gelu_parts(x, transform), pointwise_parts(wide, transform, "gelu")
    upstream = [torch.randn_like(part) for part in outputs]
    grads = torch.autograd.grad(outputs, x, upstream)
    wanted = torch.autograd.grad(expected, wide, [g.double() for g in upstream])
    for one, two in zip((*outputs, *grads), (*expected, *wanted), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), two, rtol=0, atol=TOLERANCE[dtype])


def test_gradient_in_single_precision(instructions):
    x = torch.linspace(-12, 12, 1 << 16)
    x[:3] = torch.tensor([0.0, 1e30, -1e30])
    (one,) = gelu_parts_backward([x], [torch.ones_like(x)], *points(POINT))
    exact = torch.ops.aten.gelu_backward(torch.ones_like(x).double(), x.double())
    torch.testing.assert_close(one.double(), exact, rtol=1e-6, atol=4e-7)
    special = torch.tensor([torch.nan])
    assert gelu_parts_backward([special], [torch.ones(1)], *points(POINT))[0].isnan().all()


@pytest.mark.parametrize("transform", [HALVES, OCTIC.transform])
def test_operators(cpp_compiler, transform):
    load()
    x, grads = ([normal(3, 20 * count).detach() for count in transform.slices] for _ in range(2))
    check_operator(
        torch.ops.flopbench.gelu_parts.default, [part.requires_grad_() for part in x], *points(transform)
    )
    check_operator(
        torch.ops.flopbench.gelu_parts_backward.default,
        [part.detach() for part in x],
        grads,
        *points(transform),
    )


X = torch.ones(3, 16)


@pytest.mark.parametrize(
    ("given", "transform", "message"),
    [
        ([X] * 3, Transform((1, 1, 1), (0, 1, 2), (1, 1, 1)), "1, 2, 4 or 8 points, got 3"),
        ([X], Transform((), (), ()), "1, 2, 4 or 8 points, got 0"),
        ([X] * 3, HALVES, r"slices of each of 3 parts, got \[1, 1\]"),
        ([X] * 2, Transform((2, 0), (0, 1), (1, 1)), "at least one slice of each part"),
        ([X] * 2, Transform((1, 2), (0, 1), (1, 1)), r"as many slices as points, 2, got \[1, 2\]"),
        ([X] * 2, Transform((1, 1), (0, 0), (1, 1)), r"an order of all slices, got \[0, 0\]"),
        ([X] * 2, Transform((1, 1), (0, 2), (1, 1)), r"an order of all slices, got \[0, 2\]"),
        ([X] * 2, Transform((1, 1), (0, 1), (1,)), "a sign of each of 2 points"),
        ([X] * 2, Transform((1, 1), (0, 1), (1, 2)), "signs 1 or, of several points, -1"),
        ([X], Transform((1,), (0,), (-1,)), "signs 1 or, of several points, -1"),
        ([X[:, :3]], Transform((2,), (0, 1), (1, 1)), "2 slices of a part, got 3 channels"),
        ([X, X[:, :8]], HALVES, "1 slices of 16 channels in a part, got 8"),
        ([X, X[:2]], HALVES, r"parts of shape \[3, 16\], got \[2, 16\]"),
        ([X, X.double()], HALVES, "tensors of Float on a CPU, got one of Double"),
        ([X.int()], POINT, "fp32 or fp64, got Int"),
    ],
)
def test_what_does_not_fit_is_refused(cpp_compiler, given, transform, message):
    with pytest.raises(RuntimeError, match=message):
        gelu_parts(given, transform)
    with pytest.raises(RuntimeError, match=message):
        gelu_parts_backward(given, given, *points(transform))


def test_gradients_that_do_not_fit_are_refused(cpp_compiler):
    for grads in ([X], [X, X[:, :8]], [X, X.double()]):
        with pytest.raises(RuntimeError, match="got"):
            gelu_parts_backward([X, X], grads, *points(HALVES))


def test_nothing(cpp_compiler):
    assert gelu_parts([X[:0]] * 2, HALVES)[1].shape == (0, 16)


def test_any_layout(cpp_compiler):
    s, a = torch.randn(4, 30).T, torch.randn(30, 8)[:, ::2]
    for one, two in zip(gelu_parts([s, a], HALVES), pointwise_parts([s, a], HALVES, "gelu"), strict=True):
        torch.testing.assert_close(one, two)
