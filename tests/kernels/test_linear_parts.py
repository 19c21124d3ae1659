"""Linear maps of all parts of a feature in one call: what torch's products and GELUs give, part by part."""

import pytest
import torch
import torch.nn.functional as F

from flopbench.kernels import dispatch
from flopbench.kernels.cpp import linear as kernels
from flopbench.models.layers import Mlp
from flopbench.symmetries import FLOP, PLAIN, each
from tests.kernels.agreement import TOLERANCE, check_operator, gelus, in_cpp, normal

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# Parts, weights, rows, channels in and out: less than a tile, ragged tiles and panels, several panels deep, a
# gradient of more than one strip.
SHAPES = [
    (1, 1, (1,), 16, 16),
    (2, 2, (2, 9), 48, 80),
    (4, 2, (3, 5), 64, 32),
    (2, 1, (200,), 2064, 16),
    (1, 1, (150,), 448, 400),
]

linear_parts_backward = in_cpp("linear_parts_backward")

# Those for which the gradients of features are the library's products, and of weights too.
LARGE = [
    (1, 1, (2, 3), 528, 512),
    (4, 2, (5,), 512, 528),
    (1, 1, (2, 3), 1040, 1024),
    (4, 2, (5,), 1024, 1040),
]


def inputs(parts, weights, rows, inner, out, dtype=torch.float64):
    x = [normal(*rows, inner, dtype=dtype).detach() for _ in range(parts)]
    w = [(normal(out, inner, dtype=dtype) * inner**-0.5).detach() for _ in range(weights)]
    # As the symmetries have them: on what is invariant.
    biases = [normal(out, dtype=dtype).detach() if p in (0, 3) else None for p in range(parts)]
    return x, w, biases


def present(biases):
    return [b for b in biases if b is not None], [p for p, b in enumerate(biases) if b is not None]


def by_part(x, w, biases):
    return [F.linear(part, w[p * len(w) // len(x)], biases[p]) for p, part in enumerate(x)]


@pytest.fixture
def here(monkeypatch, no_triton):
    """As on a CPU whose library was found slower."""
    monkeypatch.setattr(dispatch, "_capability", lambda: "AVX512")


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_products(instructions, shape, dtype, gelu):
    x, w, biases = inputs(*shape, dtype=dtype)
    bias, biased = present(biases)
    outputs = kernels.linear_parts(x, w, bias, biased, gelu)
    wide = [None if b is None else b.double() for b in biases]
    expected = by_part([part.double() for part in x], [v.double() for v in w], wide)
    expected = gelus(*expected) if gelu else expected
    for one, two in zip(outputs, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), two, rtol=0, atol=5 * TOLERANCE[dtype])


def test_gelu_in_single_precision(instructions):
    # Nearer than torch's is. What is not a number stays so, and what is infinite.
    x = torch.linspace(-12, 12, 1 << 16).reshape(-1, 16)
    x[0, :3] = torch.tensor([0.0, 1e30, -1e30])
    (one,) = kernels.linear_parts([x], [torch.eye(16)], [], [], True)
    exact = F.gelu(x.double())
    torch.testing.assert_close(one.double(), exact, rtol=1e-7, atol=4e-7)
    torch.testing.assert_close(one[x > -3].double(), exact[x > -3], rtol=3e-5, atol=0)
    assert one[x < -6].eq(0).all()
    special = torch.tensor([[torch.nan], [torch.inf], [-torch.inf]])
    (one,) = kernels.linear_parts([special], [torch.ones(16, 1)], [], [], True)
    torch.testing.assert_close(one[:, 0], torch.tensor([torch.nan, torch.inf, 0.0]), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE])
def test_gradients(instructions, shape, dtype):
    x, w, biases = inputs(*shape, dtype=dtype)
    bias, biased = present(biases)
    given = [tensor.requires_grad_() for tensor in (*x, *w, *bias)]
    outputs = kernels.linear_parts(x, w, bias, biased, False)
    upstream = [torch.randn_like(y) for y in outputs]
    grads = torch.autograd.grad(outputs, given, upstream)
    wide = [tensor.detach().double().requires_grad_() for tensor in given]
    wide_bias = dict(zip(biased, wide[len(x) + len(w) :], strict=True))
    wide_x, wide_w = wide[: len(x)], wide[len(x) : len(x) + len(w)]
    expected = by_part(wide_x, wide_w, [wide_bias.get(p) for p in range(len(x))])
    wanted = torch.autograd.grad(expected, wide, [g.double() for g in upstream])
    for one, two in zip((*outputs, *grads), (*expected, *wanted), strict=True):
        assert (one.dtype, one.shape) == (dtype, two.shape)
        torch.testing.assert_close(one.double(), two, rtol=0, atol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("threads", [2, 3, 4, 16, 18])
def test_threads_share_the_work(instructions, threads, gelu):
    x, w, biases = inputs(2, 2, (3, 41), 32, 384, torch.float32)
    given = x, w, *present(biases), gelu

    def outputs(threads):
        torch.set_num_threads(threads)
        y = kernels.linear_parts(*given)
        return [*y, *linear_parts_backward(y, x, w, present(biases)[1], True)]

    before = torch.get_num_threads()
    try:
        results = outputs(threads), outputs(1)
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert one.equal(two)


def test_operators(cpp_compiler):
    x, w, biases = inputs(4, 2, (3,), 16, 32, torch.float32)
    check_operator(torch.ops.flopbench.linear_parts.default, x, w, *present(biases), True)
    y = [torch.randn(3, 32) for _ in x]
    for features in (True, False):
        check_operator(torch.ops.flopbench.linear_parts_backward.default, y, x, w, [0, 3], features)
    x, w = ([tensor.requires_grad_() for tensor in tensors] for tensors in (x, w))
    check_operator(torch.ops.flopbench.linear_parts.default, x, w, *present(biases), False)


X, W, B = torch.ones(3, 32), torch.ones(16, 32), torch.ones(16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([X] * 3, [W], [], [], True), "1, 2 or 4 parts, got 3"),
        (([X] * 8, [W], [], [], True), "1, 2 or 4 parts, got 8"),
        (([], [W], [], [], False), "at least one part"),
        (([X], [], [], [], False), "a weight for each part or for every so many, got 0 for 1"),
        (([X] * 3, [W] * 2, [], [], False), "got 2 for 3"),
        (([X], [W] * 2, [], [], False), "got 2 for 1"),
        (([X, X[:2]], [W], [], [], False), r"parts of shape \[3, 32\], got \[2, 32\]"),
        (([X[:, :16]], [W], [], [], False), r"parts of shape \[3, 32\], got \[3, 16\]"),
        (([X] * 2, [W, W[:, :16]], [], [], False), r"weights of shape \[16, 32\], got \[16, 16\]"),
        (([X], [W[:10]], [], [], False), "a multiple of 16 channels out of some, got 10 out of 32"),
        (([X[:, :0]], [W[:, :0]], [], [], False), "got 16 out of 0"),
        (([X], [W[0]], [], [], False), r"weights \[out, in\]"),
        (([X[0, 0]], [W], [], [], False), r"parts \[..., in\]"),
        (([X], [W.double()], [], [], False), "tensors of Float on a CPU, got one of Double"),
        (([X.half()], [W], [], [], False), "fp32 or fp64, got Half"),
        (([X], [W], [B], [], False), "0 biases, got 1"),
        (([X], [W], [], [0], False), "1 biases, got 0"),
        (([X], [W], [B[:8]], [0], False), r"biases of shape \[16\], got \[8\]"),
        (([X], [W], [B], [1], False), "biases of different parts of 1"),
        (([X], [W], [B], [-1], False), "biases of different parts of 1"),
        (([X] * 2, [W], [B, B], [1, 1], False), "biases of different parts of 2"),
    ],
)
def test_what_does_not_fit_is_refused(cpp_compiler, given, message):
    with pytest.raises(RuntimeError, match=message):
        kernels.linear_parts(*given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([B.new_ones(3, 16)] * 2, [X], [W], [], True), "1 gradients, got 2"),
        (([X], [X], [W], [], True), r"gradients of shape \[3, 16\], got \[3, 32\]"),
        (([X[:, :16]], [X], [], [], True), "a weight for each part"),
        (([X[:, :16]], [X[:, :24]], [W[:, :24]], [], True), "16 channels in, for gradients, got 24"),
        (([X[:, :16]], [X], [W], [1], True), "biases of different parts of 1"),
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
        call([torch.empty(3, 1024)], [large], [torch.empty(1040)], [7], False)


def test_without_rows_gradients_are_zero(cpp_compiler):
    (y,) = kernels.linear_parts([X[:0]], [W], [B], [0], False)
    assert y.shape == (0, 16)
    grads = linear_parts_backward([y], [X[:0]], [W], [0], True)
    for grad, like in zip(grads, (X[:0], W, B), strict=True):
        assert grad.equal(torch.zeros_like(like))


def test_any_layout(cpp_compiler):
    x, w = [torch.randn(4, 3, 16).transpose(0, 1)], [torch.randn(16, 32).T]
    bias = torch.randn(64)[::2]
    torch.testing.assert_close(kernels.linear_parts(x, w, [bias], [0], False)[0], F.linear(x[0], w[0], bias))
    upstream = torch.randn(4, 3, 32).transpose(0, 1)
    grad_x, grad_w = linear_parts_backward([upstream], x, w, [], True)
    torch.testing.assert_close(grad_x, upstream @ w[0])
    torch.testing.assert_close(grad_w, upstream.flatten(0, 1).T @ x[0].flatten(0, 1))
    alone, grad_bias = linear_parts_backward([upstream], x, w, [0], False)
    assert alone.equal(grad_w)
    torch.testing.assert_close(grad_bias, upstream.sum((0, 1)))


@pytest.mark.parametrize("symmetry", [PLAIN, FLOP, FLOP.with_tokens((2, 4))])
@pytest.mark.parametrize("grad", [True, False])
def test_networks_compiled_whole(here, symmetry, grad):
    """The MLP with its products in one call each; without gradients the GELU is in the first."""
    layer = Mlp(symmetry, 32, 64)
    images = torch.randn(2, 3, 4, 8)
    x = (FLOP if symmetry is not PLAIN else PLAIN).patch_embed(3, 32, 2)(images)
    x = x if symmetry in (PLAIN, FLOP) else symmetry.split_tokens()(x)
    x = each(lambda part: part.detach().requires_grad_(), x)
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
