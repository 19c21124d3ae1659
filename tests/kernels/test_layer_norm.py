"""The fused layer norm of all parts, alone and of a residual sum."""

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


HALVES = (1, 1)
# Of irreps: those of a mirroring, of mirroring and quarter turns, and of the triangle's symmetries.
GROUPS = [HALVES, (1, 1, 1, 1, 2), (1, 1, 2)]
OF_GROUPS = [(group, shape) for group in GROUPS for shape in (SHAPES if group == HALVES else SHAPES[1:2])]


def norm(*given, group, impl=None):
    *x, impl = given if impl is None else (*given, impl)
    parts = sum(group)
    return layer_norm.layer_norm_parts(x[:parts], x[parts:], EPS, group, impl)


def add_norm(*given, group, impl=None):
    *x, impl = given if impl is None else (*given, impl)
    parts, affine = sum(group), -1 - len(group)
    gammas = [gamma for gamma in x[2 * parts : affine] if gamma is not None]
    return layer_norm.add_layer_norm_parts(
        x[:parts], x[parts : 2 * parts], gammas, x[affine:], EPS, group, impl
    )


def features(group, shape, **options) -> list[Any]:
    *front, channels = shape
    return [normal(*front, d * channels, **options) for d in group for _ in range(d)]


def vectors(group, channels, *, bias, **options) -> list[Any]:
    return [normal(d * channels, **options) for d in (*group, *[1] * bias)]


def inputs(group, shape, **options) -> list[Any]:
    return [*features(group, shape, **options), *vectors(group, shape[-1], bias=True, **options)]


def sum_inputs(group, shape, **options) -> list[Any]:
    x, branch = (features(group, shape, **options) for _ in range(2))
    gammas = vectors(group, shape[-1], bias=False, **options)
    return [*x, *branch, *gammas, *vectors(group, shape[-1], bias=True, **options)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("group", "shape"), OF_GROUPS)
def test_norm(device, group, shape, dtype):
    assert_agrees(partial(norm, group=group), inputs(group, shape, dtype=dtype, device=device))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("group", "shape"), OF_GROUPS)
def test_norm_of_a_residual_sum(device, group, shape, dtype, scaled):
    given = sum_inputs(group, shape, dtype=dtype, device=device)
    if not scaled:
        first = 2 * sum(group)
        given[first : first + len(group)] = [None] * len(group)
    assert_agrees(partial(add_norm, group=group), given)


def test_strided_halves_and_no_rows(device):
    s, a = normal(2, 7, 6, device=device).transpose(1, 2), normal(2, 6, 14, device=device)[..., ::2]
    halves = partial(norm, group=HALVES)
    assert_agrees(halves, [s, a, *vectors(HALVES, 7, bias=True, device=device)])
    assert_agrees(halves, inputs(HALVES, (0, 4), device=device))


def test_a_half_precision_branch_of_a_full_precision_stream(device):
    """What autocast makes of a block."""
    given = sum_inputs(HALVES, (3, 6), dtype=torch.float32, device=device)
    given[2:4] = features(HALVES, (3, 6), dtype=torch.bfloat16, device=device)
    fused, eager = (add_norm(*given, group=HALVES, impl=impl) for impl in ("fused", "eager"))
    torch.testing.assert_close(fused, eager)
    grads = [torch.randn_like(y) for y in fused]
    torch.testing.assert_close(
        torch.autograd.grad(fused, given, grads), torch.autograd.grad(eager, given, grads)
    )


def test_a_mean_that_half_precision_cannot_hold(device):
    given = inputs(HALVES, (4, 64), dtype=torch.bfloat16, device=device)
    assert_agrees(partial(norm, group=HALVES), [(given[0] + 300).detach().requires_grad_(), *given[1:]])


def test_gradcheck(device):
    fused, fused_sum = (partial(run, group=HALVES, impl="fused") for run in (norm, add_norm))
    assert gradcheck(fused, inputs(HALVES, (1, 2), device=device))
    assert gradcheck(fused_sum, sum_inputs(HALVES, (1, 2), device=device))


@pytest.mark.parametrize("group", GROUPS[:2])
def test_operators_and_traces(device, group):
    options = {"dtype": torch.float32, "device": device}
    x, branch = (features(group, (3, 6), **options) for _ in range(2))
    gammas, affine = (vectors(group, 6, bias=bias, **options) for bias in (False, True))
    operator = torch.ops.flopbench.layer_norm_parts.default
    for lists in ((x, [], []), (x, branch, []), (x, branch, gammas)):
        check_operator(operator, *lists, affine, list(group), EPS)
    assert_traceable(partial(norm, group=group), [*x, *affine])
    assert_traceable(partial(add_norm, group=group), [*x, *branch, *gammas, *affine])
