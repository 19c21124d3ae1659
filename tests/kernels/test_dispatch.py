"""Which implementation of an operation runs and why, that it is told, and that modules stay modules."""

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from flopbench.errors import FlopbenchError
from flopbench.kernels import attention, dispatch
from flopbench.kernels.attention import ATTENTION
from flopbench.kernels.depthwise import DEPTHWISE, depthwise
from flopbench.kernels.dispatch import choose, observe
from flopbench.kernels.gelu import GELU, gelu
from flopbench.kernels.layer_norm import ADD_LAYER_NORM, LAYER_NORM, add_layer_norm_parts, layer_norm_parts
from flopbench.kernels.linear import LINEAR, LINEAR_GELU, Maps, linear_gelu_parts, linear_parts
from flopbench.kernels.transform import HALVES, POINT, Transform
from flopbench.models.factory import perturb
from flopbench.models.layers import Mlp
from flopbench.symmetries import FLOP, PLAIN, Halves
from flopbench.symmetries.irreps import without_shift
from tests.models.networks import build_shallow

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FAMILIES = ("vit", "resmlp", "convnext")


@pytest.fixture
def cpu(monkeypatch, no_triton):
    """As on a CPU with AVX-512 and one thread, with a compiler and without Triton."""
    monkeypatch.setattr(dispatch, "_capability", lambda: "AVX512")
    monkeypatch.setattr(attention, "_threads", lambda: 1)


def features(*shape: int, parts: int = 2, **options: Any) -> list[torch.Tensor]:
    return [torch.randn(*shape, **options) for _ in range(parts)]


X, W = features(3, 32), Maps(features(16, 32), (0, 1), [None, None])
CALLS = {
    "linear": (LINEAR, X, W),
    "linear_gelu": (LINEAR_GELU, X, W, HALVES, "gelu"),
    "gelu": (GELU, X, HALVES, "gelu"),
    "layer_norm": (LAYER_NORM, X),
    "add_layer_norm": (ADD_LAYER_NORM, [*X, *X]),
    "attention": (ATTENTION, features(2, 5, 12), 2),
    "depthwise": (DEPTHWISE, features(1, 3, 3, 2, parts=1)),
}
# What each runs as, asked for eager, auto, fused, cpp, inductor, batched; then auto and fused, traced.
CHOICES = {
    "linear": "torch torch cpp cpp torch batched cpp cpp",
    "linear_gelu": "torch torch cpp cpp torch batched cpp cpp",
    "gelu": "torch torch cpp cpp inductor torch cpp cpp",
    "layer_norm": "torch torch cpp cpp inductor torch cpp cpp",
    "add_layer_norm": "torch torch cpp cpp inductor torch cpp cpp",
    "attention": "torch torch cpp cpp torch torch cpp cpp",
    "depthwise": "torch torch cpp cpp torch torch cpp cpp",
}


@pytest.mark.parametrize("name", CALLS)
def test_what_runs_on_a_cpu(cpu, name):
    operation, *given = CALLS[name]
    asked: Any = ("eager", "auto", "fused", "cpp", "inductor", "batched")
    chosen = [choose(operation, impl, *given) for impl in asked]
    assert all(choice.reason for choice in chosen)

    @torch.compile(backend="eager", fullgraph=True)
    def traced(x):
        chosen.extend(choose(operation, impl, *given) for impl in ("auto", "fused"))
        return x + 1

    traced(X[0])
    assert " ".join(choice.name for choice in chosen) == CHOICES[name]


AFFINE, BRANCH, QKV = features(32, parts=3), features(3, 32), features(2, 5, 12)
KERNEL = torch.randn(2, 1, 3, 3, requires_grad=True)


def linear_gelu(x, maps, transform, kind, impl: Any):
    if impl in ("cpp", "batched"):
        return linear_gelu_parts(x, maps, transform, kind, impl)
    return gelu(linear_parts(x, maps, impl), transform, kind, impl)


RUNS = [
    (LINEAR, linear_parts, (X, W)),
    (LINEAR_GELU, linear_gelu, (X, W, HALVES, "gelu")),
    (GELU, gelu, (X, HALVES, "gelu")),
    (LAYER_NORM, layer_norm_parts, (X, AFFINE, 1e-6, (1, 1))),
    (ADD_LAYER_NORM, add_layer_norm_parts, (X, BRANCH, AFFINE[:2], AFFINE, 1e-6, (1, 1))),
    (ATTENTION, attention.attention_parts, (QKV, 2)),
    (
        DEPTHWISE,
        lambda x, kernel, bias, contiguous, impl: depthwise(
            x, kernel, bias, contiguous=contiguous, impl=impl
        ),
        (torch.randn(1, 3, 3, 2), KERNEL, None, True),
    ),
]


@pytest.mark.parametrize(("operation", "run", "given"), RUNS, ids=[one[0].name for one in RUNS])
def test_every_implementation_is_what_its_operation_specifies(cpu, operation, run, given):
    expected = operation.specification(*given)
    names = {one.name for one in operation.implementations} - {"triton"}
    for impl in ("eager", *sorted(names)):
        got = run(*given, impl=impl)
        torch.testing.assert_close(tuple(got), tuple(expected), rtol=1e-4, atol=1e-5)


def one(weight: torch.Tensor) -> Maps:
    return Maps([weight], (0,), [None])


@pytest.mark.parametrize("symmetry", [FLOP, FLOP.with_tokens((2, 2))])
def test_what_is_invariant_alone_is_computed_in_cpp(cpu, symmetry):
    layer: Any = symmetry.linear(32, 32, invariant_only=True)
    x = symmetry.feature_of(torch.randn(1, 2, 16) for _ in symmetry.rows.of)
    expected = layer(x)
    layer.impl = "cpp"
    with torch.no_grad():
        got = layer(x)
    for part, wanted in zip(got, expected, strict=True):
        assert (part is None) == (wanted is None)
        if part is not None:
            torch.testing.assert_close(part, wanted.detach(), rtol=1e-4, atol=1e-5)


def test_reasons_against_cpp(cpu, monkeypatch):
    def why(operation, parts, *given):
        found = choose(operation, "fused", parts, *given)
        return found.reason.partition("cpp: ")[2].partition(";")[0] if found.name != "cpp" else ""

    x, w = torch.empty(3, 32), torch.empty(16, 32)
    for parts, reason in (
        ([x.bfloat16()], "a tensor of bfloat16"),
        ([x.to("meta")], "a tensor on meta"),
        ([x[:0]], "nothing in them"),
        ([x, x[:2]], "parts of unlike tokens"),
    ):
        assert reason in (
            why(GELU, parts, POINT, "gelu"),
            why(LINEAR, parts, Maps([w], (0,) * len(parts), [None] * len(parts))),
        ), reason
    assert why(LINEAR, [x], one(w)) == ""
    assert why(LINEAR, [x], one(w[:10])) == "channels that are no multiples of 16"
    assert why(LINEAR, [x[:, :10]], one(w[:, :10])) == "channels that are no multiples of 16"
    assert why(LINEAR, [x], one(w.double())) == "weights of another dtype"
    assert why(GELU, [x], POINT, "quick_gelu") == "quick_gelu is not the exact GELU"
    with torch.autocast("cpu", torch.bfloat16):
        assert why(LINEAR, [x], one(w)) == why(DEPTHWISE, [x]) == "autocast"
    w.requires_grad_()
    assert why(LINEAR, [x], one(w)) == "some parts or weights take no gradient"
    x.requires_grad_()
    assert why(LINEAR, [x], one(w)) == ""
    assert why(LINEAR_GELU, [x], one(w), POINT, "gelu") == "gradients need what goes into the GELU"
    with torch.no_grad():
        assert why(LINEAR_GELU, [x], one(w), POINT, "gelu") == ""
        two = Transform((2,), (0, 1), (1, 1))
        assert why(LINEAR_GELU, [x], one(w), two, "gelu") == "points that are no multiples of 16 channels"
    qkv = torch.empty(2, 5, 12)
    monkeypatch.setattr(attention, "_threads", lambda: 4)
    assert why(ATTENTION, [qkv], 2) == ""
    assert why(ATTENTION, [qkv[:1]], 2) == "fewer heads than threads"
    assert why(ATTENTION, [torch.empty(2, 1025, 12)], 2) == ""
    monkeypatch.setattr(dispatch, "_capability", lambda: "AVX2")
    assert why(GELU, [x], POINT, "gelu") == "not measured on a CPU without AVX-512"
    # Asked for by name, speed is the user's business.
    assert choose(GELU, "cpp", [x], POINT, "gelu").name == "cpp"


def test_bf16_on_a_cpu_without_tiles_alone_keeps_scores(cpu, monkeypatch):
    qkv = features(2, 5, 12, parts=1, dtype=torch.bfloat16)
    for without_tiles in (True, False):
        monkeypatch.setattr(attention, "_multiplies_bf16_without_tiles", lambda found=without_tiles: found)
        for impl in ("auto", "fused"):
            assert choose(ATTENTION, impl, qkv, 2).name == ("unfused" if without_tiles else "torch")
        assert choose(ATTENTION, "eager", qkv, 2).name == "torch"
        assert choose(ATTENTION, "auto", [qkv[0].half()], 2).name == "torch"
        many = [torch.empty(1, 1025, 12, dtype=torch.bfloat16)]
        assert choose(ATTENTION, "fused", many, 2).name == "torch"
    assert choose(ATTENTION, "unfused", [qkv[0].float()], 2).name == "unfused"


def test_what_is_asked_for_by_name_and_cannot_run_is_refused(cpu):
    x = torch.empty(3, 10)
    with pytest.raises(FlopbenchError, match=r"impl='cpp' cannot run linear: channels .*; use impl='auto'"):
        choose(LINEAR, "cpp", [x], one(x))
    with pytest.raises(FlopbenchError, match="impl='cpp' cannot run gelu: a tensor of bfloat16"):
        choose(GELU, "cpp", [x.bfloat16()], POINT, "gelu")
    with pytest.raises(FlopbenchError, match=r"impl='triton' cannot run gelu: a tensor on cpu"):
        choose(GELU, "triton", [x, x], HALVES, "gelu")
    with pytest.raises(FlopbenchError, match=r"impl='triton' cannot run gelu: Triton is not installed"):
        choose(GELU, "triton", [x.to("meta")] * 2, HALVES, "gelu")
    # Two in one run apart.
    assert choose(LINEAR_GELU, "cpp", [x], one(x), POINT, "gelu").name == "torch"
    maps = Maps([x, x[1:]], (0, 1), [None] * 2)
    unlike = choose(LINEAR_GELU, "triton", [x.to("meta")] * 2, maps, HALVES, "gelu")
    assert unlike == ("torch", "triton: not the weights of a symmetry's irreps")
    # And where there is none of that name for so many parts, nothing was refused.
    assert choose(LAYER_NORM, "triton", [x]) == ("torch", "triton: one kernel already")
    assert choose(GELU, "inductor", [x], POINT, "gelu") == ("torch", "inductor: one kernel already")
    octic = features(1, 4, 6, parts=6)
    assert choose(ATTENTION, "triton", octic, 1) == ("torch", "triton: written for 1 and 2 parts")
    assert choose(LINEAR, "inductor", [x], one(x)) == ("torch", "there is none of inductor")


def test_a_refusal_while_a_compiler_traces_says_why(cpu):
    layer = Mlp(PLAIN, 10, 10)
    dispatch.select(layer, "cpp")
    with pytest.raises(Exception, match="impl='cpp' cannot run linear: channels") as caught:
        torch.compile(layer, backend="eager")(torch.randn(2, 10))
    from flopbench.runner.process import describe

    kind, line = describe(caught.value)
    assert kind == "usage"
    assert line.startswith("impl='cpp' cannot run linear")
    assert "\n" not in line


def test_exported_networks_keep_to_torch(cpu):
    layer = Mlp(FLOP, 32, 64)
    x = Halves(*features(2, 5, 16))
    with observe() as ran, torch.no_grad():
        torch.export.export(layer, (x,))
    assert {name for choices in ran.values() for name in choices} == {"torch"}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("version", ["plain", "flop"])
def test_what_is_observed_is_what_ran(cpu, version, compiled):
    """Torch's profiler names the operators that were called."""
    model = build_shallow("vit", version, width=32, patch_size=2).eval()
    dispatch.select(model, "auto" if compiled else "fused")
    images = torch.randn(2, 3, 8, 12)
    call = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
    with torch.no_grad(), observe() as ran:
        call(images)
    with torch.no_grad(), torch.profiler.profile(acc_events=True) as profile:
        call(images)
    called = {event.key.partition("::")[2] for event in profile.key_averages() if "flopbench::" in event.key}
    # The norm of one part is torch's.
    norms = {"layer_norm", "add_layer_norm"} if version == "flop" else set()
    assert called == {"linear_parts", "attention_parts", *(["layer_norm_rows"] if norms else [])}
    assert {name for name, choices in ran.items() if "cpp" in choices} == {
        "linear",
        "linear_gelu",
        "attention",
        *norms,
    }


def test_nobody_observes_afterwards():
    with observe() as ran:
        pass
    choose(GELU, "eager", X, HALVES, "gelu")
    assert ran == {}


# Hooks, wrappers and parametrisations.


def runs(family: str, impl: Any, change: Any) -> tuple[torch.Tensor, Any]:
    torch.manual_seed(0)
    width: Any = {"widths": (32, 64)} if family == "convnext" else {"width": 32}
    model = build_shallow(family, image_size=(8, 16), **width)
    perturb(model)
    seen = change(model)
    dispatch.select(model, impl)
    torch.manual_seed(1)
    with torch.no_grad():
        return model.eval()(torch.randn(2, 3, 8, 16)), seen


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hook_on_every_linear_layer_fires_in_each(cpu, family):
    def listen(model):
        seen = []
        for path, module in model.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda *_, path=path: seen.append(path))
        return seen, [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]

    results = {
        impl: runs(family, impl, listen) for impl in ("eager", "auto", "fused", "cpp", "inductor", "batched")
    }
    output, (called, every) = results["eager"]
    # Of the last layer before an invariant head half is not computed.
    assert set(every) - set(called) <= {every[-2]}
    for other, (seen, _) in results.values():
        assert seen == called
        torch.testing.assert_close(other, output, rtol=1e-4, atol=1e-4)


class Adapter(nn.Module):
    """As LoRA wraps a linear layer: what it gives, and a low-rank product."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


def adapt(model):
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and path.endswith((".s", ".a", "fc1")) and ".mix" not in path:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, Adapter(module))


def scale(model):
    for module in list(model.modules()):
        if isinstance(module, nn.Linear):
            parametrize.register_parametrization(module, "weight", Double())


def patch(model):
    for module in model.modules():
        if isinstance(module, nn.Linear):
            patched: Any = module
            patched.forward = lambda x, forward=module.forward: 2 * forward(x)


def double(model):
    for module in model.modules():
        if isinstance(module, nn.Linear):
            for parameter in module.parameters():
                parameter.data.mul_(2)


@pytest.mark.parametrize("change", [adapt, scale, patch])
@pytest.mark.parametrize("family", FAMILIES)
def test_wrapped_and_parametrised_layers_are_seen_in_each(cpu, family, change):
    plain = runs(family, "eager", lambda model: None)[0]
    output = runs(family, "eager", change)[0]
    assert (output - plain).abs().max() > 1e-3
    if change is patch:
        torch.testing.assert_close(output, runs(family, "eager", double)[0], rtol=1e-4, atol=1e-4)
    for impl in ("auto", "fused", "cpp"):
        torch.testing.assert_close(runs(family, impl, change)[0], output, rtol=1e-4, atol=1e-4)


def test_a_patched_layer_is_seen_where_a_compiler_traces(cpu):
    layer, x = Mlp(FLOP, 32, 64), Halves(*features(2, 5, 16))
    doubled = deepcopy(layer)
    double(doubled)
    patch(layer)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), doubled(x))


def test_an_impl_of_another_meaning_is_left_alone():
    model: Any = nn.Sequential(Mlp(FLOP, 32, 64), nn.Identity())
    model[1].impl = "theirs"
    dispatch.select(model, "cpp")
    with dispatch.specified(model):
        assert [model[0].act.impl, model[1].impl] == ["eager", "theirs"]
    assert [model[0].act.impl, model[1].impl] == ["cpp", "theirs"]


def test_the_linear_part_of_an_affine_map():
    layer, x = nn.Linear(4, 3), torch.randn(2, 5, 4)
    torch.testing.assert_close(without_shift(layer, x), F.linear(x, layer.weight))


@pytest.mark.parametrize("other", [nn.ReLU(), nn.GELU(approximate="tanh"), nn.Identity()])
@pytest.mark.parametrize("symmetry", [PLAIN, FLOP])
def test_another_activation_is_never_taken_for_the_exact_gelu(cpu, symmetry, other):
    layer = Mlp(symmetry, 32, 64)
    layer.act = other if symmetry is PLAIN else EachHalf(other)
    x = features(2, 5, 32)[0] if symmetry is PLAIN else Halves(*features(2, 5, 16))
    results = []
    for impl in ("eager", "cpp"):
        dispatch.select(layer, impl)
        with torch.no_grad():
            y = layer(x)
        results.append(y if symmetry is PLAIN else torch.cat(list(y), -1))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


class EachHalf(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return Halves(*map(self.inner, x))


def test_the_gradient_alone_of_a_depthwise_convolution_is_chosen(cpu):
    x, kernel = torch.randn(1, 4, 4, 2), torch.randn(2, 1, 3, 3)
    with observe() as ran:
        depthwise(x, kernel, None, impl="cpp")
        depthwise(x, kernel.requires_grad_(), None, impl="cpp")
    assert list(ran["depthwise"]) == ["torch", "cpp"]
