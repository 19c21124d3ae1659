"""What operations are exported as for engines: norms joined, products before a GELU folded, one batched."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from flopbench.engines.base import program_of
from flopbench.kernels import TORCH, has_ours
from flopbench.kernels.attention import ATTENTION, attention_parts
from flopbench.kernels.dispatch import choose, exported, idiom, observe
from flopbench.kernels.gelu import GELU
from flopbench.kernels.layer_norm import ADD_LAYER_NORM, LAYER_NORM, add_layer_norm_parts, layer_norm_parts
from flopbench.kernels.linear import LINEAR, LINEAR_GELU, Maps, linear_gelu_parts, linear_parts
from flopbench.kernels.transform import HALVES, POINT
from tests.kernels.agreement import PARTS, TRANSFORMS, linear_inputs, normal, parts_and_maps
from tests.models.networks import build_shallow

EPS = 1e-2
"""So large that a wrong one shows."""
TIGHT = {torch.float64: 4e-15, torch.float32: 4e-6}
EVERY: dict[str, Any] = {
    "layer_norm": "joined",
    "add_layer_norm": "joined",
    "linear_gelu": "folded",
    "linear": "batched",
    "attention": "unfused",
}

# Dimensions of irreps, and the channels of a row of each: halves, octic, a triangle's; then some that no
# regular representation has.
GROUPS = [
    ((1, 1), (8, 8)),
    ((1, 1, 1, 1, 2), (4, 4, 4, 4, 8)),
    ((1, 1, 2), (6, 6, 12)),
    ((1, 1), (6, 10)),
    ((1, 2), (5, 3)),
]


def features(dimensions, widths, **options) -> list[Any]:
    parts = [width for d, width in zip(dimensions, widths, strict=True) for _ in range(d)]
    # Means that are not those of their neighbours.
    return [(normal(2, 3, width, **options) + p).detach().requires_grad_() for p, width in enumerate(parts)]


def vectors(widths, **options) -> list[Any]:
    return [normal(width, **options) for width in widths]


def assert_same(run, given, one, other, dtype, atol=None):
    """Values and gradients of `run` as `one` and as `other`, relative to the largest."""
    outputs, expected = run(given, one), run(given, other)
    grads = [torch.randn_like(y) for y in expected]
    got = torch.autograd.grad(outputs, given, grads)
    wanted = torch.autograd.grad(expected, given, grads)
    for x, y in zip((*outputs, *got), (*expected, *wanted), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        scale = max(1.0, y.abs().max().item())
        torch.testing.assert_close(x, y, rtol=0, atol=(atol or TIGHT[dtype]) * scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("dimensions", "widths"), GROUPS)
def test_the_joined_norm(dimensions, widths, dtype):
    x = features(dimensions, widths, dtype=dtype)

    def run(given, impl):
        return layer_norm_parts(given[: len(x)], given[len(x) :], EPS, dimensions, impl)

    affine = [*vectors(widths, dtype=dtype), normal(widths[0], dtype=dtype)]
    assert_same(run, [*x, *affine], "joined", "eager", dtype)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("dimensions", "widths"), GROUPS[:2])
def test_the_joined_norm_of_a_sum(dimensions, widths, dtype, scaled):
    x, branch = (features(dimensions, widths, dtype=dtype) for _ in range(2))
    gammas = vectors(widths, dtype=dtype) if scaled else []
    affine = [*vectors(widths, dtype=dtype), normal(widths[0], dtype=dtype)]

    def run(given, impl):
        n = len(x)
        last = 2 * n + len(gammas)
        lists = given[:n], given[n : 2 * n], given[2 * n : last], given[last:]
        return add_layer_norm_parts(*lists, EPS, dimensions, impl)

    assert_same(run, [*x, *branch, *gammas, *affine], "joined", "eager", dtype)


def test_the_joined_norm_has_its_statistics_in_full_precision():
    x = [(part + 300).to(torch.bfloat16) for part in features((1, 1), (8, 8))]
    affine = [vector.detach().to(torch.bfloat16) for vector in vectors((8, 8, 8))]
    got, expected = (layer_norm_parts(x, affine, EPS, (1, 1), impl) for impl in ("joined", "eager"))
    assert {part.dtype for part in got} == {torch.bfloat16}
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("parts", PARTS[1:])
def test_the_folded_products_before_a_gelu(parts, dtype, kind):
    given = [
        x.detach().requires_grad_() for x in linear_inputs(parts, (2, 3), 8, 16, partial(normal, dtype=dtype))
    ]

    def run(tensors, which):
        arguments = *parts_and_maps(parts, tensors), TRANSFORMS[parts], kind
        if which == "eager":
            return LINEAR_GELU.specification(*arguments)
        return linear_gelu_parts(*arguments, which)

    assert_same(run, given, "folded", "eager", dtype)


def test_folded_products_without_a_bias_add_none():
    x, weights = [normal(3, 4), normal(3, 4)], [normal(8, 4), normal(8, 4)]
    arguments = x, Maps(weights, (0, 1), [None, None]), HALVES, "gelu"
    got, expected = linear_gelu_parts(*arguments, "folded"), LINEAR_GELU.specification(*arguments)
    torch.testing.assert_close(got, expected, rtol=0, atol=4e-15)
    graph = make_fx(lambda x: linear_gelu_parts(x, *arguments[1:], "folded"))(x).graph
    # The sums of the transforms.
    assert sum(node.target is torch.ops.aten.add.Tensor for node in graph.nodes) == 2


@pytest.mark.parametrize("way", ["eager", "unfused"])
@pytest.mark.parametrize("widths", [(12,), (12, 12), (12, 6)])
def test_attention_of_heads_that_are_joined_over_the_parts(widths, way):
    heads, qkv = 3, [normal(2, 5, 3 * width) for width in widths]
    got = attention_parts(qkv, heads, way)
    split = [x.view(2, 5, 3, heads, -1) for x in qkv]
    q, k, _ = torch.cat(split, -1).unbind(2)
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) * q.shape[-1] ** -0.5
    for part, x in zip(got, split, strict=True):
        expected = torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), x[:, :, 2]).flatten(2)
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-14)


# What is chosen.

X = [torch.randn(2, 3, 8) for _ in range(2)]
MAPS = Maps([torch.randn(16, 8) for _ in range(2)], (0, 1), [torch.randn(16), None])
QKV = [torch.randn(2, 3, 12) for _ in range(2)]
CALLS: dict[str, Any] = {
    "layer_norm": (LAYER_NORM, X),
    "add_layer_norm": (ADD_LAYER_NORM, [*X, *X]),
    "linear_gelu": (LINEAR_GELU, X, MAPS, HALVES, "gelu"),
    "linear": (LINEAR, X, MAPS),
    "attention": (ATTENTION, QKV, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_idiom_chooses_what_it_names_until_it_ends(name):
    operation, *given = CALLS[name]
    before = choose(operation, "auto", *given)
    with observe() as ran, idiom(EVERY):
        assert choose(operation, "auto", *given) == (EVERY[name], "the engine's idiom")
        assert choose(operation, "eager", *given).name == "torch"
        with idiom({}):
            assert choose(operation, "auto", *given) == ("torch", "exported")
        assert choose(operation, "auto", *given).name == EVERY[name]
    assert EVERY[name] in ran[name]
    assert not has_ours(ran)
    assert choose(operation, "auto", *given) == before
    with pytest.raises(ZeroDivisionError), idiom(EVERY):
        _ = 1 / 0
    assert choose(operation, "auto", *given) == before


def test_what_an_idiom_cannot_have_is_torchs_with_a_reason():
    ragged = [X[0], X[1][:, :2]]
    low = Maps([weight.bfloat16() for weight in MAPS.weights], MAPS.of, MAPS.biases)
    narrow = Maps([MAPS.weights[0], MAPS.weights[1][:8]], MAPS.of, [None, None])
    cases: list[Any] = [
        ("joined: one kernel already", LAYER_NORM, X[:1]),
        ("joined: parts of unlike tokens", LAYER_NORM, ragged),
        ("joined: nothing in them", ADD_LAYER_NORM, [x[:0] for x in (*X, *X)]),
        ("folded: one kernel already", LINEAR_GELU, X[:1], MAPS, POINT, "gelu"),
        ("folded: it would round weights twice", LINEAR_GELU, X, low, HALVES, "gelu"),
        ("folded: parts of unlike tokens", LINEAR_GELU, ragged, MAPS, HALVES, "gelu"),
        ("batched: parts or weights of unlike shapes", LINEAR, X, narrow),
        ("exported", GELU, X, HALVES, "gelu"),
    ]
    with idiom(EVERY):
        for reason, operation, *given in cases:
            assert choose(operation, "auto", *given) == ("torch", reason)
    with idiom({"gelu": "joined"}):
        assert choose(GELU, "auto", X, HALVES, "gelu") == ("torch", "there is none of joined")


@pytest.mark.parametrize("name", ["layer_norm", "add_layer_norm", "linear_gelu"])
def test_what_is_for_engines_runs_by_name_alone(name):
    operation, *given = CALLS[name]
    assert EVERY[name] in TORCH
    for impl in ("auto", "fused"):
        choice = choose(operation, impl, *given)
        assert choice.name != EVERY[name]
        # Records say nothing of what nobody asked for.
        assert EVERY[name] not in choice.reason
    assert choose(operation, EVERY[name], *given) == (EVERY[name], "asked for")
    assert exported("joined").named


# What is exported.


class Call(nn.Module):
    """An operation as a module, with parameters for what are weights."""

    def __init__(self, operation: Any, *weights: torch.Tensor) -> None:
        super().__init__()
        self.operation = operation
        self.weights = nn.ParameterList(nn.Parameter(x.detach()) for x in weights)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.operation([x, y], list(self.weights))


def norm(x, affine):
    return layer_norm_parts(x, affine, EPS, (1, 1))


def hidden(x, w):
    maps = Maps(w[:2], (0, 1), [w[2], None])
    which = choose(LINEAR_GELU, "auto", x, maps, HALVES, "gelu").name
    if which == "torch":
        return LINEAR_GELU.specification(x, maps, HALVES, "gelu")
    return linear_gelu_parts(x, maps, HALVES, "gelu", which)


def product(x, w):
    return linear_parts(x, Maps(w[:2], (0, 1), [w[2], None]))


def mix(x, w):
    return attention_parts(x, 2)


# Operators of each kind in what is exported, in the idiom.
EXPORTED = {
    "layer_norm": (
        norm,
        X,
        vectors((8, 8, 8), dtype=torch.float32),
        {"layer_norm": 1, "mean": 2, "rsqrt": 0},
    ),
    "linear_gelu": (hidden, X, [*MAPS.weights, MAPS.biases[0]], {"linear": 2, "gelu": 2}),
    "linear": (product, X, [*MAPS.weights, MAPS.biases[0]], {"bmm": 1, "linear": 0}),
    "attention": (mix, QKV, [], {"matmul": 2, "softmax": 1, "scaled_dot_product_attention": 0, "select": 0}),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_what_is_exported_takes_any_batch_and_has_few_operators(name):
    operation, x, weights, counts = EXPORTED[name]
    model = Call(operation, *weights)
    with observe() as ran, idiom(EVERY):
        program = program_of(model, tuple(x))
    assert list(ran[name]) == [EVERY[name]]
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    called = [target.__name__.partition(".")[0] for target in targets]
    assert {kind: called.count(kind) for kind in counts} == counts
    more = [torch.randn(5, *part.shape[1:]) for part in x]
    with torch.no_grad():
        got, expected = program.module()(*more), model(*more)
    torch.testing.assert_close(tuple(got), tuple(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("version", ["flop", "octic", "hybrid"])
def test_a_network_in_an_idiom_is_the_same_network(version):
    model = build_shallow("vit", version, image_size=(16, 16), width=64, patch_size=4).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        with observe() as ran, idiom(EVERY):
            got = model(images)
    assert {name for name in EVERY if EVERY[name] in ran[name]} >= {"layer_norm", "linear_gelu", "attention"}
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12 * expected.abs().max().item())
    assert expected.std() > 1e-3
