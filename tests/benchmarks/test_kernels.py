"""Fused operations against the eager ones that specify them, on the CPU; on a GPU: tests/gpu/microbench.py.

pytest tests/benchmarks/test_kernels.py --benchmark-enable --benchmark-save=NAME
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from flopbench.kernels import dispatch, layer_norm
from flopbench.kernels.attention import by_heads, unfused_attention
from flopbench.kernels.cpp import linear as kernels
from flopbench.kernels.cpp.attention import attention_parts
from flopbench.kernels.cpp.gelu import gelu_parts
from flopbench.kernels.depthwise import depthwise
from flopbench.kernels.gelu import gelu, pointwise_parts
from flopbench.kernels.inductor import compiled, missing_compiler
from flopbench.kernels.transform import HALVES, QUARTERS
from tests.kernels.agreement import TRANSFORMS, in_cpp

# ViT-B's halves.
BATCH, TOKENS, HALF, HEADS = 8, 197, 384, 12


def _random(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype)


def _feature(channels=HALF):
    return [_random(BATCH, TOKENS, channels) for _ in range(2)]


def _vectors(count):
    return [_random(HALF) for _ in range(count)]


def _gelu(*parts):
    return pointwise_parts(parts, TRANSFORMS[len(parts)], "gelu")


# What has a version of its own on a CPU: the others are the library's products and copies there.
OPERATIONS = {
    "layer_norm": lambda: partial(layer_norm.layer_norm_parts, _feature(), _vectors(3), 1e-6, (1, 1)),
    "add_layer_norm": lambda: partial(
        layer_norm.add_layer_norm_parts, _feature(), _feature(), _vectors(2), _vectors(3), 1e-6, (1, 1)
    ),
    "mirror_gelu": lambda: partial(gelu, _feature(4 * HALF), HALVES, "gelu"),
    "mirror_gelu_tokens": lambda: partial(
        gelu, [_random(BATCH, 98, 4 * HALF) for _ in range(4)], QUARTERS, "gelu"
    ),
}


@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what inductor imports
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(flopbench, name, monkeypatch):
    # Where the tests of the kernels have put Triton's interpreter to work, it would stand in for a GPU; and
    # it has to be asked before Triton is first loaded.
    monkeypatch.setattr(dispatch, "_load", lambda: ("not for this benchmark", False))
    operation = OPERATIONS[name]()
    flopbench.compare(partial(operation, impl="eager"), partial(operation, impl="fused"))


@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("tokens", [TOKENS, 577, 1025, 2305, 4097])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("grad", [False, True])
def test_attention_of_parts(flopbench, benchmark, tokens, parts, grad):
    """From one part, as X has it, and from two halves, which torch's operator needs side by side.

    Of an image of 224, 384, 512, 768 and 1024 pixels in patches of 16.
    """
    width = 2 * HALF // HEADS // parts
    batch = BATCH if tokens == TOKENS else 1
    if tokens > 1025 and not benchmark.enabled:
        pytest.skip("nothing is timed, and that few agree is seen already")
    # Nor does it take all heads to see it.
    heads = HEADS if benchmark.enabled else 1
    qkv = [_random(batch, tokens, 3 * heads * width).requires_grad_(grad) for _ in range(parts)]
    upstream = [_random(batch, tokens, heads * width) for _ in range(parts)]

    def call(operation):
        mixed = operation(qkv, heads)[:parts]
        return torch.autograd.grad(mixed, qkv, upstream) if grad else mixed

    flopbench.compare(partial(call, by_heads), partial(call, attention_parts), grad=grad)


@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("width", [HALF, 2 * HALF])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("gelu", [False, True])
def test_linear_of_parts(flopbench, width, parts, gelu):
    """The first product of an MLP, of one part and of halves, against the library's and inductor's GELU."""
    channels = width // parts
    x = [_random(BATCH, TOKENS, channels) for _ in range(parts)]
    weights = [_random(4 * channels, channels) * channels**-0.5 for _ in range(parts)]
    bias = _random(4 * channels)
    transform = TRANSFORMS[parts] if gelu else None
    activate = compiled(_gelu, x[0])

    def library():
        products = [F.linear(x[p], weights[p], None if p else bias) for p in range(parts)]
        return activate(*products) if gelu else products

    with torch.no_grad():
        flopbench.compare(
            library, partial(kernels.linear_parts, x, weights, range(parts), [bias], [0], transform)
        )


@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("width", [HALF, 2 * HALF])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("features", [True, False])
def test_gradients_of_linear_of_parts(flopbench, width, parts, features):
    """Of the first product of an MLP: the gradients of weights and bias, and of features too or not."""
    channels = width // parts
    x = [_random(BATCH * TOKENS, channels) for _ in range(parts)]
    weights = [_random(4 * channels, channels) * channels**-0.5 for _ in range(parts)]
    grads = [_random(BATCH * TOKENS, 4 * channels) for _ in range(parts)]

    def library():
        of_weights = [g.t() @ part for g, part in zip(grads, x, strict=True)]
        of_bias = [grads[0].sum(0)]
        return (
            of_weights + of_bias + ([g @ w for g, w in zip(grads, weights, strict=True)] if features else [])
        )

    flopbench.compare(
        library,
        partial(in_cpp("linear_parts_backward"), grads, x, weights, range(parts), [0], features),
        grad=True,
    )


@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("contiguous", [False, True])
def test_depthwise(flopbench, contiguous, monkeypatch):
    """The forward pass and the gradient of the kernels, which is what there are two versions of."""
    monkeypatch.setattr(dispatch, "_load", lambda: ("not for this benchmark", False))
    x, upstream = (_random(BATCH, 14, 14, 2 * HALF) for _ in range(2))
    kernel = _random(2 * HALF, 1, 7, 7).requires_grad_()

    def call(impl):
        mixed = depthwise(x, kernel, None, contiguous=contiguous, impl=impl)
        return torch.autograd.grad(mixed, kernel, upstream)

    flopbench.compare(partial(call, "eager"), partial(call, "fused"), grad=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True])
def test_attention_with_scores_in_memory(flopbench, dtype, grad):
    """What `attention` chooses between, in the layout in which a network has its heads."""
    qkv = _random(BATCH, TOKENS, 3, HEADS, 2 * HALF // HEADS, dtype=dtype).requires_grad_(grad)
    upstream = _random(BATCH, HEADS, TOKENS, 2 * HALF // HEADS, dtype=dtype)

    def call(operation):
        mixed = operation(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        return torch.autograd.grad(mixed, qkv, upstream)[0] if grad else mixed

    flopbench.compare(
        partial(call, F.scaled_dot_product_attention), partial(call, unfused_attention), grad=grad
    )


@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("grad", [False, True])
def test_gelu_of_parts(flopbench, parts, grad):
    """By itself, as training has it, against what inductor makes of the eager one."""
    x = [_random(BATCH, TOKENS, 8 * HALF // parts).requires_grad_(grad) for _ in range(parts)]
    upstream = [torch.randn_like(part) for part in x]
    activate = compiled(_gelu, x[0])

    def call(operation):
        outputs = operation(x)
        return torch.autograd.grad(outputs, x, upstream) if grad else outputs

    fused = partial(gelu_parts, transform=TRANSFORMS[parts])
    flopbench.compare(partial(call, lambda x: activate(*x)), partial(call, fused), grad=grad)
