"""The fused products of both halves, and the GELU in their epilogue."""

from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from flopbench.errors import FlopbenchError
from flopbench.kernels.linear import LINEAR_GELU, linear_gelu_parts
from tests.kernels.agreement import (
    DTYPES,
    PARTS,
    TOLERANCE,
    assert_agrees,
    assert_traceable,
    check_operator,
    linear_halves,
    normal,
)

# Shape in front, channels in, channels out: less than a tile, ragged tiles, more than a group of tiles.
SHAPES = [((1,), 1, 1), ((2, 9), 17, 5), ((150,), 16, 40)]


def inputs(front, inner, out, **options) -> list[Any]:
    scale = inner**-0.5
    halves = [normal(*front, inner, **options) for _ in range(2)]
    weights = [(normal(out, inner, **options) * scale).detach().requires_grad_() for _ in range(2)]
    return [*halves, *weights, normal(out, **options)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_products(device, shape, dtype):
    given = inputs(*shape, dtype=dtype, device=device)
    assert_agrees(linear_halves, given)
    assert_agrees(linear_halves, [*given[:4], None])


@pytest.mark.parametrize("kind", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("parts", PARTS)
def test_gelu_in_the_epilogue(device, parts, shape, dtype, kind):
    front, inner, out = shape
    options: dict[str, Any] = {"dtype": dtype, "device": device}
    x = [normal(*front, inner, **options).detach() for _ in range(parts)]
    weights = [normal(out, inner, **options).detach() * inner**-0.5 for _ in range(min(parts, 2))]
    # As the symmetries have them: on what is invariant.
    biases = [normal(out, **options).detach() if p in (0, 3) else None for p in range(parts)]
    given = x, weights, biases
    fused = linear_gelu_parts(*given, kind, "triton")
    wide = [[None if x is None else x.double() for x in tensors] for tensors in given]
    expected = LINEAR_GELU.specification(*wide, kind)
    for one, two in zip(fused, expected, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=TOLERANCE[dtype], atol=3 * TOLERANCE[dtype])


def test_strided_inputs_and_no_rows(device):
    given = inputs((3, 4), 6, 5, device=device)
    given[0] = normal(4, 3, 6, device=device).transpose(0, 1)
    given[2] = normal(6, 5, device=device).T
    assert_agrees(linear_halves, given)
    assert_agrees(linear_halves, inputs((0,), 3, 4, device=device))


def test_autocast_takes_the_products_to_low_precision(device):
    given = inputs((5,), 8, 4, dtype=torch.float32, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        fused, eager = (linear_halves(*given, impl=impl) for impl in ("fused", "eager"))
    assert fused[0].dtype == eager[0].dtype == torch.bfloat16
    torch.testing.assert_close(fused, eager, rtol=2e-2, atol=2e-2)


def test_gradcheck(device):
    assert gradcheck(partial(linear_halves, impl="fused"), inputs((3,), 2, 2, device=device))


def test_operators(device):
    given = inputs((3,), 4, 5, dtype=torch.float32, device=device)
    check_operator(torch.ops.flopbench.linear_halves.default, *given)
    s, a, *weights, bias = (x.detach() for x in given)
    check_operator(torch.ops.flopbench.linear_gelu.default, [s, a], weights, bias, None, "gelu")


def test_traced(device):
    assert_traceable(linear_halves, inputs((3,), 4, 5, device=device))


@pytest.mark.parametrize("parts", PARTS)
def test_tuning_times_what_neither_spills_nor_lacks_shared_memory(device, monkeypatch, parts):
    kernels = import_module("flopbench.kernels.triton.linear")
    given = {"weight_s_ptr": torch.empty(1, dtype=torch.bfloat16)}
    configs = kernels._fitting(kernels._CONFIGS, given, PARTS=parts)
    assert 2 <= len(configs) <= 5 - parts // 2
    for config in configs:
        tile = config.kwargs["ROWS"] * config.kwargs["COLUMNS"]
        # Half of the registers that a thread can have are left to everything else.
        assert parts * tile <= 128 * 32 * config.num_warps
    monkeypatch.setattr(kernels, "tuned", False)
    assert kernels._fitting(kernels._CONFIGS, given, PARTS=parts) == configs[:1]
    monkeypatch.setattr(kernels, "tuned", True)
    given = {"weight_s_ptr": torch.empty(1)}
    assert kernels._fitting(kernels._CONFIGS, given, PARTS=parts) == [kernels._SMALL]


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("shared", [48, 99, 163, 227])
def test_what_is_tried_finds_room_on_smaller_gpus(device, monkeypatch, parts, shared):
    kernels = import_module("flopbench.kernels.triton.linear")
    properties = SimpleNamespace(shared_memory_per_block_optin=shared * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    with FakeTensorMode():
        given = {"weight_s_ptr": torch.empty(1, dtype=torch.bfloat16, device="cuda")}
    configs = kernels._fitting(kernels._CONFIGS, given, PARTS=parts)
    assert configs
    for config in configs:
        rows, columns, inner = (config.kwargs[name] for name in ("ROWS", "COLUMNS", "INNER"))
        lines = parts * rows + min(parts, 2) * columns
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
        linear_gelu_parts([x], [weight], [None], "gelu", "triton")
    assert sizes[0] == sizes[1] != sizes[2]
