"""Linear maps of all parts of a feature in one call: what torch's products and GELUs give, part by part."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from flopbench.kernels import dispatch
from flopbench.kernels.cpp import linear as kernels
from flopbench.kernels.cpp import load
from flopbench.kernels.gelu import pointwise_parts
from flopbench.kernels.linear import Maps, by_part
from flopbench.kernels.transform import HALVES, POINT, QUARTERS, Transform
from flopbench.models.layers import Mlp
from flopbench.symmetries import FLOP, OCTIC, PLAIN
from tests.kernels.agreement import TOLERANCE, check_operator, in_cpp, normal

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Case(NamedTuple):
    """Parts of `rows`, `inner` channels to `out` for each slice, weights `of` them, biases on `biased`."""

    transform: Transform
    of: tuple[int, ...]
    biased: tuple[int, ...]
    rows: tuple[int, ...]
    inner: int
    out: int

    def inputs(self, dtype=torch.float64):
        """Parts, weights, which they are of, biases, which parts they are of."""
        slices = self.transform.slices
        x = [normal(*self.rows, count * self.inner, dtype=dtype).detach() for count in slices]
        sizes = {w: (count * self.out, count * self.inner) for w, count in zip(self.of, slices, strict=True)}
        weights = [(normal(*sizes[w], dtype=dtype) * sizes[w][1] ** -0.5).detach() for w in range(len(sizes))]
        biases = [normal(slices[p] * self.out, dtype=dtype).detach() for p in self.biased]
        return x, weights, list(self.of), biases, list(self.biased)


SHARED = Transform((2, 2), (3, 0, 2, 1), (1, -1, -1, 1))
ONE = POINT, (0,), (0,)
TWO = HALVES, (0, 1), (0,)
EIGHT = OCTIC.transform, (0, 1, 2, 3, 4, 4), (0,)

# Less than a tile, ragged tiles and panels, several panels deep, a gradient of more than one strip; weights
# that parts share, side by side and not; biases on several parts.
CASES = [
    Case(*ONE, (1,), 16, 16),
    Case(*TWO, (2, 9), 48, 80),
    Case(QUARTERS, (0, 0, 1, 1), (0, 3), (3, 5), 64, 32),
    Case(QUARTERS, (1, 0, 1, 0), (2, 3), (7,), 32, 48),
    Case(HALVES, (0, 0), (1,), (200,), 2064, 16),
    Case(*ONE, (150,), 448, 400),
    Case(*EIGHT, (3, 11), 16, 80),
    Case(*EIGHT, (25,), 528, 16),
    Case(SHARED, (0, 0), (0, 1), (2, 3), 32, 48),
]

linear_parts_backward = in_cpp("linear_parts_backward")

# Those for which the gradients of features are the library's products, and of weights too.
LARGE = [
    Case(*ONE, (2, 3), 528, 512),
    Case(QUARTERS, (0, 0, 1, 1), (0, 3), (5,), 512, 528),
    Case(*ONE, (2, 3), 1040, 1024),
    Case(QUARTERS, (0, 1, 1, 0), (0, 3), (5,), 1024, 1040),
    Case(*EIGHT, (2,), 272, 256),
    Case(*EIGHT, (2,), 528, 512),
]


def maps(case, weights, biases):
    by_part = dict(zip(case.biased, biases, strict=True))
    return Maps(weights, case.of, [by_part.get(p) for p in range(len(case.of))])


@pytest.fixture
def here(monkeypatch, no_triton):
    """As on a CPU whose library was found slower."""
    monkeypatch.setattr(dispatch, "_capability", lambda: "AVX512")
    yield
    # Torch compiles the forward pass of a class so many times a process.
    torch.compiler.reset()


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_products(instructions, case, dtype, gelu):
    x, w, of, bias, biased = case.inputs(dtype)
    outputs = kernels.linear_parts(x, w, of, bias, biased, case.transform if gelu else None)
    x, w, bias = ([tensor.double() for tensor in tensors] for tensors in (x, w, bias))
    expected = by_part(x, maps(case, w, bias))
    expected = pointwise_parts(expected, case.transform, "gelu") if gelu else expected
    for one, two in zip(outputs, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), two, rtol=0, atol=5 * TOLERANCE[dtype])


def test_gelu_in_single_precision(instructions):
    # Nearer than torch's is. What is not a number stays so, and what is infinite.
    x = torch.linspace(-12, 12, 1 << 16).reshape(-1, 16)
    x[0, :3] = torch.tensor([0.0, 1e30, -1e30])
    (one,) = kernels.linear_parts([x], [torch.eye(16)], [0], [], [], POINT)
    exact = F.gelu(x.double())
    torch.testing.assert_close(one.double(), exact, rtol=1e-7, atol=4e-7)
    torch.testing.assert_close(one[x > -3].double(), exact[x > -3], rtol=3e-5, atol=0)
    assert one[x < -6].eq(0).all()
    special = torch.tensor([[torch.nan], [torch.inf], [-torch.inf]])
    (one,) = kernels.linear_parts([special], [torch.ones(16, 1)], [0], [], [], POINT)
    torch.testing.assert_close(one[:, 0], torch.tensor([torch.nan, torch.inf, 0.0]), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", [*CASES, *LARGE])
def test_gradients(instructions, case, dtype):
    x, w, of, bias, biased = case.inputs(dtype)
    given = [tensor.requires_grad_() for tensor in (*x, *w, *bias)]
    outputs = kernels.linear_parts(x, w, of, bias, biased, None)
    upstream = [torch.randn_like(y) for y in outputs]
    grads = torch.autograd.grad(outputs, given, upstream)
    wide = [tensor.detach().double().requires_grad_() for tensor in given]
    wide_x, wide_w, wide_bias = wide[: len(x)], wide[len(x) : len(x) + len(w)], wide[len(x) + len(w) :]
    expected = by_part(wide_x, maps(case, wide_w, wide_bias))
    wanted = torch.autograd.grad(expected, wide, [g.double() for g in upstream])
    for one, two in zip((*outputs, *grads), (*expected, *wanted), strict=True):
        assert (one.dtype, one.shape) == (dtype, two.shape)
        torch.testing.assert_close(one.double(), two, rtol=0, atol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("threads", [2, 3, 4, 16, 18])
@pytest.mark.parametrize("kind", [TWO, EIGHT])
def test_threads_share_the_work(instructions, kind, threads, gelu):
    case = Case(*kind, rows=(3, 41), inner=32, out=96 if kind is EIGHT else 384)
    x, w, of, bias, biased = case.inputs(torch.float32)

    def outputs(threads):
        torch.set_num_threads(threads)
        y = kernels.linear_parts(x, w, of, bias, biased, case.transform if gelu else None)
        return [*y, *linear_parts_backward(y, x, w, of, biased, True)]

    before = torch.get_num_threads()
    try:
        results = outputs(threads), outputs(1)
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert one.equal(two)


@pytest.mark.parametrize("kind", [(QUARTERS, (0, 0, 1, 1), (0, 3)), EIGHT])
def test_operators(cpp_compiler, kind):
    load()
    transform = kind[0]
    points = transform.slices, transform.order, transform.signs
    x, w, of, bias, biased = Case(*kind, rows=(3,), inner=16, out=32).inputs(torch.float32)
    check_operator(torch.ops.flopbench.linear_parts.default, x, w, of, bias, biased, *points)
    y = [torch.randn(3, 32 * count) for count in transform.slices]
    for features in (True, False):
        check_operator(torch.ops.flopbench.linear_parts_backward.default, y, x, w, of, biased, features)
    x, w = ([tensor.requires_grad_() for tensor in tensors] for tensors in (x, w))
    check_operator(torch.ops.flopbench.linear_parts.default, x, w, of, bias, biased, [], [], [])


X, W, B = torch.ones(3, 32), torch.ones(16, 32), torch.ones(16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([], [W], [], [], [], None), "at least one part"),
        (([X], [], [0], [], [], None), r"weights of 0, got \[0\]"),
        (([X], [W], [1], [], [], None), r"weights of 1, got \[1\]"),
        (([X] * 3, [W], [0, 0], [], [], None), r"a weight of each of 3 parts, got \[0, 0\]"),
        (([X] * 2, [W] * 2, [1, 1], [], [], None), r"parts of every one of 2 weights, got \[1, 1\]"),
        (([X, X[:2]], [W], [0, 0], [], [], None), r"parts of shape \[3, 32\], got \[2, 32\]"),
        (([X[:, :16]], [W], [0], [], [], None), r"parts of shape \[3, 32\], got \[3, 16\]"),
        (([X] * 2, [W, W[:, :16]], [0, 1], [], [], None), r"parts of shape \[3, 16\], got \[3, 32\]"),
        (([X], [W[:10]], [0], [], [], None), "a multiple of 16 channels out of some, got 10 out of 32"),
        (([X[:, :0]], [W[:, :0]], [0], [], [], None), "got 16 out of 0"),
        (([X], [W[0]], [0], [], [], None), r"weights \[out, in\]"),
        (([X[0, 0]], [W], [0], [], [], None), r"parts \[..., channels\]"),
        (([X], [W.double()], [0], [], [], None), "tensors of Float on a CPU, got one of Double"),
        (([X.half()], [W], [0], [], [], None), "fp32 or fp64, got Half"),
        (([X], [W], [0], [B], [], None), "0 biases, got 1"),
        (([X], [W], [0], [], [0], None), "1 biases, got 0"),
        (([X], [W], [0], [B[:8]], [0], None), r"biases of shape \[16\], got \[8\]"),
        (([X], [W], [0], [B], [1], None), "biases of different parts of 1"),
        (([X], [W], [0], [B], [-1], None), "biases of different parts of 1"),
        (([X] * 2, [W], [0, 0], [B, B], [1, 1], None), "biases of different parts of 2"),
        (([X], [W], [0], [], [], HALVES), r"slices of each of 1 parts, got \[1, 1\]"),
        (([X], [W], [0], [], [], Transform((2,), (0, 1), (1, 1))), "multiple of 16 channels, got 8"),
    ],
)
def test_what_does_not_fit_is_refused(cpp_compiler, given, message):
    with pytest.raises(RuntimeError, match=message):
        kernels.linear_parts(*given)


def test_there_is_no_gradient_with_the_gelu(cpp_compiler):
    with pytest.raises(RuntimeError, match="no gradient with the GELU"):
        kernels.linear_parts([X.clone().requires_grad_()], [W], [0], [], [], POINT)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([B.new_ones(3, 16)] * 2, [X], [W], [0], [], True), "1 gradients, got 2"),
        (([X], [X], [W], [0], [], True), r"gradients of shape \[3, 16\], got \[3, 32\]"),
        (([X[:, :16]], [X], [], [0], [], True), "weights of 0"),
        (([X[:, :16]], [X[:, :24]], [W[:, :24]], [0], [], True), "16 channels in, for gradients, got 24"),
        (([X[:, :16]], [X], [W], [0], [1], True), "biases of different parts of 1"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(cpp_compiler, given, message):
    with pytest.raises(RuntimeError, match=message):
        linear_parts_backward(*given)


def test_numbers_are_checked_before_gradients_are_traced(cpp_compiler):
    """What a compiler traces of the gradient picks parts by them."""
    large = torch.empty(1040, 1024, requires_grad=True)
    call = torch.compile(torch.ops.flopbench.linear_parts.default, backend="aot_eager")
    with pytest.raises(Exception, match="biases of different parts of 1"):
        call([torch.empty(3, 1024)], [large], [0], [torch.empty(1040)], [7], [], [], [])


def test_without_rows_gradients_are_zero(cpp_compiler):
    (y,) = kernels.linear_parts([X[:0]], [W], [0], [B], [0], None)
    assert y.shape == (0, 16)
    grads = linear_parts_backward([y], [X[:0]], [W], [0], [0], True)
    for grad, like in zip(grads, (X[:0], W, B), strict=True):
        assert grad.equal(torch.zeros_like(like))


def test_any_layout(cpp_compiler):
    x, w = [torch.randn(4, 3, 16).transpose(0, 1)], [torch.randn(16, 32).T]
    bias = torch.randn(64)[::2]
    (y,) = kernels.linear_parts(x, w, [0], [bias], [0], None)
    torch.testing.assert_close(y, F.linear(x[0], w[0], bias))
    upstream = torch.randn(4, 3, 32).transpose(0, 1)
    grad_x, grad_w = linear_parts_backward([upstream], x, w, [0], [], True)
    torch.testing.assert_close(grad_x, upstream @ w[0])
    torch.testing.assert_close(grad_w, upstream.flatten(0, 1).T @ x[0].flatten(0, 1))
    alone, grad_bias = linear_parts_backward([upstream], x, w, [0], [0], False)
    assert alone.equal(grad_w)
    torch.testing.assert_close(grad_bias, upstream.sum((0, 1)))


@pytest.mark.parametrize("symmetry", [PLAIN, FLOP, FLOP.with_tokens((2, 4)), OCTIC])
@pytest.mark.parametrize("grad", [True, False])
def test_networks_compiled_whole(here, symmetry, grad):
    """The MLP with its products in one call each; without gradients the GELU is in the first."""
    layer = Mlp(symmetry, 128, 256)
    x = symmetry.feature_of(torch.randn(2, *shape).requires_grad_() for shape in symmetry.shapes((8,), 128))
    targets = []

    def backend(graph, inputs):
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    with torch.set_grad_enabled(grad):
        output = torch.compile(layer, backend=backend, fullgraph=True)(x)
        torch.testing.assert_close(output, layer(x), rtol=1e-5, atol=1e-5)
        exported = torch.export.export(layer, (x,))
    assert sum("linear_parts" in target for target in targets) == 2
    assert any("gelu_parts" in target for target in targets) is grad
    assert not any("flopbench" in str(node.target) for node in exported.graph.nodes)
