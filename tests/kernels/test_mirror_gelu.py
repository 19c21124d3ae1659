"""The fused GELUs on mirror pairs of channels, and of channels and tokens."""

from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from flopbench.kernels.gelu import gelu
from flopbench.kernels.transform import HALVES, QUARTERS
from tests.kernels.agreement import DTYPES, assert_agrees, assert_traceable, check_operator, normal

KINDS = ["gelu", "quick_gelu"]


def pairs(kind):
    return lambda s, a, impl: gelu((s, a), HALVES, kind, impl)


def tokens(kind):
    return lambda ss, sa, as_, aa, impl: gelu((ss, sa, as_, aa), QUARTERS, kind, impl)


def quarters(*shape, **options):
    return [normal(*shape, **options) for _ in range(4)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (2, 3, 5), (9, 100)])
def test_pairs(device, shape, dtype, kind):
    assert_agrees(pairs(kind), [normal(*shape, dtype=dtype, device=device) for _ in range(2)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 5, 7), (2, 9, 40)])
def test_quarters(device, shape, dtype, kind):
    assert_agrees(tokens(kind), quarters(*shape, dtype=dtype, device=device))


def test_strided_parts_and_none_at_all(device):
    s, a = normal(3, 5, device=device).T, normal(5, 6, device=device)[:, ::2]
    assert_agrees(pairs("gelu"), [s, a])
    assert_agrees(pairs("gelu"), [normal(0, 4, device=device), normal(0, 4, device=device)])
    ss, sa, as_, aa = quarters(2, 4, 5, device=device)
    assert_agrees(
        tokens("gelu"), [ss.flip(1), sa.mT.contiguous().mT, as_.transpose(0, 1).transpose(0, 1), aa]
    )


def test_large_values_stay_finite(device):
    s = torch.tensor([-300.0, -30.0, 0.0, 30.0, 300.0], device=device).requires_grad_()
    for kind in KINDS:
        assert_agrees(pairs(kind), [s, normal(5, dtype=torch.float32, device=device)])


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(device, kind):
    assert gradcheck(
        partial(pairs(kind), impl="fused"), (normal(2, 3, device=device), normal(2, 3, device=device))
    )
    assert gradcheck(partial(tokens(kind), impl="fused"), quarters(1, 3, 2, device=device))


def test_operators(device):
    given = quarters(2, 3, 4, dtype=torch.float32, device=device)
    check_operator(torch.ops.flopbench.mirror_gelu.default, [given[0], given[2]], "gelu")
    check_operator(torch.ops.flopbench.mirror_gelu.default, given, "gelu")


def test_traced(device):
    assert_traceable(pairs("gelu"), [normal(2, 3, device=device), normal(2, 3, device=device)])
    assert_traceable(tokens("gelu"), quarters(1, 3, 2, device=device))
