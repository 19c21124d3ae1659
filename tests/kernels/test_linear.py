"""The fused products of all parts of a feature, and the GELU in their epilogue."""

from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from flopbench.errors import FlopbenchError
from flopbench.kernels.dispatch import choose, observe
from flopbench.kernels.linear import LINEAR, LINEAR_GELU, Maps, linear_gelu_parts, linear_parts
from flopbench.kernels.transform import POINT
from tests.kernels.agreement import (
    BIASED,
    DTYPES,
    OF,
    PARTS,
    TOLERANCE,
    TRANSFORMS,
    assert_agrees,
    assert_traceable,
    check_operator,
    linear_inputs,
    normal,
    parts_and_maps,
)

# Shape in front, channels in, channels out: less than a tile, ragged tiles, more than a group of tiles.
SHAPES = [((1,), 1, 1), ((2, 9), 17, 5), ((150,), 16, 40)]
# The widest parts are as many tiles of fewer rows.
OF_PARTS = [(parts, shape) for parts in PARTS for shape in (SHAPES if parts < 6 else SHAPES[1:2])]


def linear(*tensors, parts, impl=None):
    if impl is None:
        *tensors, impl = tensors
    return linear_parts(*parts_and_maps(parts, tensors), impl)


def inputs(parts, front, inner, out, **options) -> list[Any]:
    return [x.requires_grad_() for x in linear_inputs(parts, front, inner, out, partial(normal, **options))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("parts", "shape"), [given for given in OF_PARTS if given[0] in (2, 6)])
def test_products(device, parts, shape, dtype):
    assert_agrees(partial(linear, parts=parts), inputs(parts, *shape, dtype=dtype, device=device))


def test_products_without_a_bias_or_with_one_for_each_part(device):
    s, a, weight, _, bias = inputs(2, (3, 4), 6, 5, device=device)

    def shared(s, a, weight, *given):
        *biases, impl = given
        return linear_parts([s, a], Maps([weight], (0, 0), biases), impl)

    assert_agrees(shared, [s, a, weight, None, None])
    assert_agrees(shared, [s, a, weight, bias, normal(5, device=device)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("parts", "shape"), [given for given in OF_PARTS if given[0] in (2, 4)])
def test_one_batched_product(parts, shape, dtype):
    given = inputs(parts, *shape, dtype=dtype)
    with observe() as ran:
        assert_agrees(partial(linear, parts=parts), given, "batched")
    assert ran["linear"] == {"batched": "asked for", "torch": "asked for"}

    def with_gelu(*tensors):
        *given, impl = tensors
        x, maps = parts_and_maps(parts, given)
        of = x, maps, TRANSFORMS[parts], "gelu"
        return linear_gelu_parts(*of, impl) if impl == "batched" else LINEAR_GELU.specification(*of)

    assert_agrees(with_gelu, given, "batched")


def test_one_batched_product_with_a_bias_on_any_part():
    s, a, weight, _, bias = inputs(2, (3, 4), 6, 5)
    for biases in ([None, None], [None, bias], [bias, normal(5)]):

        def shared(s, a, weight, *given):
            *biases, impl = given
            return linear_parts([s, a], Maps([weight], (0, 0), biases), impl)

        assert_agrees(shared, [s, a, weight, *biases], "batched")


def test_one_batched_product_under_autocast():
    x, maps = parts_and_maps(2, inputs(2, (3, 7), 16, 8, dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        batched, eager = (linear_parts(x, maps, impl) for impl in ("batched", "eager"))
    for one, two in zip(batched, eager, strict=True):
        assert one.dtype == two.dtype == torch.bfloat16
        torch.testing.assert_close(one, two, rtol=2e-2, atol=2e-2)


def test_one_batched_product_is_of_parts_and_weights_of_one_shape():
    alike, (wide, *_) = inputs(2, (3,), 6, 5), inputs(2, (3,), 8, 5)
    x, maps = parts_and_maps(2, alike)
    for parts, weights in (([x[0], wide], maps.weights), (x, [maps.weights[0], maps.weights[1][:4]])):
        with pytest.raises(FlopbenchError, match=r"^impl='batched' cannot run linear: .* unlike shapes; use"):
            linear_parts(parts, Maps(weights, (0, 1), [None, None]), "batched")
    octic = parts_and_maps(6, inputs(6, (3,), 4, 5))
    with pytest.raises(FlopbenchError, match=r"^impl='batched' cannot run linear: .* unlike shapes; use"):
        linear_parts(*octic, "batched")
    assert choose(LINEAR, "batched", x[:1], Maps(maps.weights[:1], (0,), [None])).name == "torch"


def test_one_batched_product_is_not_what_a_cpu_takes_unasked(no_triton):
    # Of channels that C++ does not take either.
    x, maps = parts_and_maps(2, inputs(2, (3,), 6, 5))
    for impl in ("fused", "auto"):
        assert choose(LINEAR, impl, x, maps).name == "torch"
    traced = []

    @torch.compile(backend="eager", fullgraph=True)
    def network(x):
        traced.extend(choose(LINEAR, impl, x, maps) for impl in ("fused", "auto"))
        return x[0] + 1

    network(list(x))
    assert [choice.name for choice in traced] == ["torch", "torch"]
    assert all("batched: for compiled networks on a GPU" in choice.reason for choice in traced)


@pytest.mark.parametrize("kind", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("parts", "shape"), OF_PARTS)
def test_gelu_in_the_epilogue(device, parts, shape, dtype, kind):
    given = [x.detach() for x in inputs(parts, *shape, dtype=dtype, device=device)]
    fused = linear_gelu_parts(*parts_and_maps(parts, given), TRANSFORMS[parts], kind, "triton")
    wide = parts_and_maps(parts, [x.double() for x in given])
    expected = LINEAR_GELU.specification(*wide, TRANSFORMS[parts], kind)
    for one, two in zip(fused, expected, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=TOLERANCE[dtype], atol=3 * TOLERANCE[dtype])


def test_strided_inputs_and_no_rows(device):
    given = inputs(2, (3, 4), 6, 5, device=device)
    given[0] = normal(4, 3, 6, device=device).transpose(0, 1)
    given[2] = normal(6, 5, device=device).T
    assert_agrees(partial(linear, parts=2), given)
    nothing = inputs(2, (0,), 3, 4, device=device)
    assert_agrees(partial(linear, parts=2), nothing)
    x, maps = parts_and_maps(2, nothing)
    (s, a) = torch.ops.flopbench.tiled_linear_parts(x, maps.weights, [0, 1], [], [])
    assert s.shape == a.shape == (0, 4)


def test_autocast_takes_the_products_to_low_precision(device):
    given = inputs(2, (5,), 8, 4, dtype=torch.float32, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        fused, eager = (linear(*given, parts=2, impl=impl) for impl in ("fused", "eager"))
    assert fused[0].dtype == eager[0].dtype == torch.bfloat16
    torch.testing.assert_close(fused, eager, rtol=2e-2, atol=2e-2)


def test_gradcheck(device):
    assert gradcheck(partial(linear, parts=6, impl="fused"), inputs(6, (1,), 1, 1, device=device))


@pytest.mark.parametrize("parts", [2, 6])
def test_operators_and_traces(device, parts):
    given = inputs(parts, (3,), 4, 5, dtype=torch.float32, device=device)
    x, maps = parts_and_maps(parts, given)
    of, biased = list(OF[parts]), list(BIASED[parts])
    biases = [maps.biases[p] for p in biased]
    operators = torch.ops.flopbench
    check_operator(operators.tiled_linear_parts.default, x, maps.weights, of, biases, biased)
    check_operator(operators.tiled_linear_parts.default, x, maps.weights, of, [], [])
    detached = ([y.detach() for y in tensors] for tensors in (x, maps.weights, biases))
    x, weights, biases = detached
    lists = TRANSFORMS[parts].lists
    check_operator(operators.linear_gelu.default, x, weights, of, biases, biased, *lists, "gelu")
    assert_traceable(partial(linear, parts=parts), given)


def fused(parts):
    """What a config of the products with a GELU is looked at for."""
    return {"SLICES": TRANSFORMS[parts].slices, "OF": OF[parts]}


@pytest.mark.parametrize("parts", PARTS)
def test_tuning_times_what_neither_spills_nor_lacks_shared_memory(device, monkeypatch, parts):
    kernels = import_module("flopbench.kernels.triton.linear")
    fitting = partial(kernels._fitting, kernels._CONFIGS, **fused(parts))
    given = {"x": (torch.empty(1, dtype=torch.bfloat16),)}
    configs = fitting(given)
    points = len(TRANSFORMS[parts].order)
    assert len(configs) == {1: 4, 2: 3, 4: 2, 8: 1}[points]
    for config in configs:
        tile = config.kwargs["ROWS"] * config.kwargs["COLUMNS"]
        # Half of the registers that a thread can have are left to everything else.
        assert points * tile <= 128 * 32 * config.num_warps
    monkeypatch.setattr(kernels, "tuned", False)
    assert fitting(given) == configs[:1]
    monkeypatch.setattr(kernels, "tuned", True)
    assert fitting({"x": (torch.empty(1),)}) == [kernels._SMALL]


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("shared", [48, 99, 163, 227])
def test_what_is_tried_finds_room_on_smaller_gpus(device, monkeypatch, parts, shared):
    kernels = import_module("flopbench.kernels.triton.linear")
    properties = SimpleNamespace(shared_memory_per_block_optin=shared * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    with FakeTensorMode():
        given = {"x": (torch.empty(1, dtype=torch.bfloat16, device="cuda"),)}
    configs = kernels._fitting(kernels._CONFIGS, given, **fused(parts))
    assert configs
    for config in configs:
        rows, columns, inner = (config.kwargs[name] for name in ("ROWS", "COLUMNS", "INNER"))
        # Of the parts of like width, and of their weights.
        features, weights = {1: (1, 1), 2: (2, 2), 4: (4, 2), 6: (4, 4)}[parts]
        lines = features * rows + weights * columns
        assert config.num_stages * lines * inner * 2 <= shared * 1024


def test_a_kernel_that_does_not_fit_is_one_line(device, monkeypatch):
    kernels = import_module("flopbench.kernels.triton")
    no_room = import_module("triton.runtime.errors").OutOfResources(262144, 101376, "shared memory")

    class Kernel:
        def __getitem__(self, grid):
            raise no_room

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Small")
    with pytest.raises(
        FlopbenchError, match=r"NVIDIA Small \(shared memory: 262144 wanted, 101376 there\); use"
    ):
        kernels.launch(Kernel(), (1,), torch.empty(1))


def test_another_batch_of_like_size_is_not_tuned_again(device, monkeypatch):
    kernels = import_module("flopbench.kernels.triton.linear")
    sizes = []

    def launch(kernel, grid, on, *args, **meta):
        given = dict(zip(kernel.arg_names, args, strict=False)) | meta
        sizes.append([given.get(name) for name in kernel.keys])

    monkeypatch.setattr(kernels, "launch", launch)
    for rows in (197 * 33, 197 * 40, 197 * 64):
        x, weight = torch.empty(rows, 16), torch.empty(32, 16)
        linear_gelu_parts([x], Maps([weight], (0,), [None]), POINT, "gelu", "triton")
    assert sizes[0] == sizes[1] != sizes[2]
