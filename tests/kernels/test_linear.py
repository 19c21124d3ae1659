"""The fused products of both halves, and the GELU in their epilogue."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from flopbench.kernels.linear import LINEAR_GELU, linear_gelu_parts
from tests.kernels.agreement import (
    DTYPES,
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
def test_gelu_in_the_epilogue(device, shape, dtype, kind):
    s, a, weight_s, weight_a, bias = (x.detach() for x in inputs(*shape, dtype=dtype, device=device))
    given = (s, a), (weight_s, weight_a), (bias, None)
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
    check_operator(torch.ops.flopbench.linear_gelu_halves.default, *(x.detach() for x in given), "gelu")


def test_traced(device):
    assert_traceable(linear_halves, inputs((3,), 4, 5, device=device))
