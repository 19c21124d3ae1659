"""The fused layer norm of both halves, alone and of a residual sum."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from flopbench.kernels import layer_norm
from tests.kernels.agreement import DTYPES, assert_agrees, assert_traceable, check_operator, normal

EPS = 1e-6
# One row, one channel, rows and channels that fill no block, several blocks.
SHAPES = [(1, 1), (2, 3, 5), (70, 8), (3, 100)]


def norm(s, a, gain_s, gain_a, bias, impl):
    return layer_norm.layer_norm_parts((s, a), (gain_s, gain_a, bias), EPS, (1, 1), impl)


def add_norm(s, a, branch_s, branch_a, gamma_s, gamma_a, gain_s, gain_a, bias, impl):
    gammas = () if gamma_s is None else (gamma_s, gamma_a)
    given = (s, a), (branch_s, branch_a), gammas, (gain_s, gain_a, bias)
    return layer_norm.add_layer_norm_parts(*given, EPS, (1, 1), impl)


def inputs(shape, halves=2, vectors=3, **options) -> list[Any]:
    return [normal(*shape, **options) for _ in range(halves)] + [
        normal(shape[-1], **options) for _ in range(vectors)
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_norm(device, shape, dtype):
    assert_agrees(norm, inputs(shape, dtype=dtype, device=device))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scaled", [True, False])
def test_norm_of_a_residual_sum(device, shape, dtype, scaled):
    given = inputs(shape, 4, 5, dtype=dtype, device=device)
    assert_agrees(add_norm, given if scaled else [*given[:4], None, None, *given[6:]])


def test_strided_halves_and_no_rows(device):
    s, a = normal(2, 7, 6, device=device).transpose(1, 2), normal(2, 6, 14, device=device)[..., ::2]
    assert_agrees(norm, [s, a, *inputs((7,), 0, 3, device=device)])
    assert_agrees(norm, inputs((0, 4), device=device))


def test_a_half_precision_branch_of_a_full_precision_stream(device):
    """What autocast makes of a block."""
    full = inputs((3, 6), 2, 5, dtype=torch.float32, device=device)
    branch = inputs((3, 6), 2, 0, dtype=torch.bfloat16, device=device)
    given = [*full[:2], *branch, *full[2:]]
    fused, eager = add_norm(*given, impl="fused"), add_norm(*given, impl="eager")
    torch.testing.assert_close(fused, eager)
    grads = [torch.randn_like(y) for y in fused]
    torch.testing.assert_close(
        torch.autograd.grad(fused, given, grads), torch.autograd.grad(eager, given, grads)
    )


def test_a_mean_that_half_precision_cannot_hold(device):
    given = inputs((4, 64), dtype=torch.bfloat16, device=device)
    assert_agrees(norm, [(given[0] + 300).detach().requires_grad_(), *given[1:]])


def test_gradcheck(device):
    assert gradcheck(partial(norm, impl="fused"), inputs((2, 3), device=device))
    assert gradcheck(partial(add_norm, impl="fused"), inputs((2, 3), 4, 5, device=device))


def test_operators(device):
    options = {"dtype": torch.float32, "device": device}
    operator, given = torch.ops.flopbench.layer_norm_halves.default, inputs((3, 6), 4, 5, **options)
    check_operator(operator, given[:2], [], [], given[-3:], EPS)
    check_operator(operator, given[:2], given[2:4], [], given[-3:], EPS)
    check_operator(operator, given[:2], given[2:4], given[4:6], given[-3:], EPS)


def test_traced(device):
    assert_traceable(norm, inputs((3, 6), device=device))
    assert_traceable(add_norm, inputs((3, 6), 4, 5, device=device))
