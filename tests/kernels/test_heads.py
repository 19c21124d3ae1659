"""The fused packing of halves into heads, and back."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from flopbench.kernels import heads
from tests.kernels.agreement import DTYPES, assert_agrees, assert_traceable, check_operator, normal

# Batch, tokens, heads, channels of a head in a half.
SHAPES = [(1, 1, 1, 1), (2, 5, 3, 4), (2, 17, 2, 5), (1, 40, 1, 40)]


def split(count):
    return lambda s, a, impl: heads.split_heads(s, a, count, impl)


def qkv(batch, tokens, count, half, **options) -> Any:
    return [normal(batch, tokens, 3 * count * half, **options) for _ in range(2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_split(device, shape, dtype):
    assert_agrees(split(shape[2]), qkv(*shape, dtype=dtype, device=device))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_merge(device, shape, dtype):
    batch, tokens, count, half = shape
    assert_agrees(heads.merge_heads, [normal(batch, count, tokens, 2 * half, dtype=dtype, device=device)])
    # As fused attention returns it.
    laid_out = normal(batch, tokens, count, 2 * half, dtype=dtype, device=device).transpose(1, 2)
    assert_agrees(heads.merge_heads, [laid_out])
    assert_agrees(heads.merge_heads, [normal(batch, count, 2 * half, tokens, device=device).mT])


def test_gradients_with_strides_of_their_own(device):
    """Attention's gradients may be laid out otherwise than its inputs, and each in its own way."""
    given = qkv(2, 5, 3, 4, device=device)
    grads = [normal(2, 3, 5, 8), normal(2, 5, 3, 8).transpose(1, 2), normal(2, 3, 1, 8).expand(-1, -1, 5, -1)]
    grads = [grad.detach().to(device) for grad in grads]
    fused, eager = (
        torch.autograd.grad(heads.split_heads(*given, heads=3, impl=impl), given, grads)
        for impl in ("fused", "eager")
    )
    torch.testing.assert_close(fused, eager, rtol=0, atol=0)


def test_gradcheck(device):
    assert gradcheck(partial(split(2), impl="fused"), qkv(1, 2, 2, 1, device=device))
    assert gradcheck(partial(heads.merge_heads, impl="fused"), normal(1, 2, 3, 4, device=device))


def test_operators(device):
    options = {"dtype": torch.float32, "device": device}
    check_operator(torch.ops.flopbench.pack_heads.default, *qkv(2, 3, 2, 2, **options), 3, 2)
    check_operator(torch.ops.flopbench.unpack_heads.default, [normal(2, 2, 3, 4, **options)])


def test_traced(device):
    assert_traceable(split(2), qkv(2, 3, 2, 2, device=device))
    assert_traceable(heads.merge_heads, [normal(2, 2, 3, 4, device=device)])
