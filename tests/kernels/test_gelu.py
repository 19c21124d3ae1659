"""The fused GELU in the transform of a group: of halves, of quarters, and of parts of unequal width."""

import pytest
import torch
from torch.autograd import gradcheck

from flopbench.kernels.gelu import Activation, gelu
from tests.kernels.agreement import (
    DTYPES,
    TRANSFORMS,
    assert_agrees,
    assert_traceable,
    check_operator,
    normal,
)

KINDS: list[Activation] = ["gelu", "quick_gelu"]
SEVERAL = [transform for parts, transform in TRANSFORMS.items() if parts > 1]
HALVES = TRANSFORMS[2]


def fused(transform, kind: Activation = "gelu"):
    return lambda *given: gelu(given[:-1], transform, kind, given[-1])


def parts_of(transform, *shape, **options):
    *front, channels = shape
    return [normal(*front, count * channels, **options) for count in transform.slices]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (2, 3, 5), (3, 100)])
@pytest.mark.parametrize("transform", SEVERAL)
def test_agreement(device, transform, shape, dtype, kind):
    assert_agrees(fused(transform, kind), parts_of(transform, *shape, dtype=dtype, device=device))


def test_strided_parts_and_none_at_all(device):
    s, a = normal(3, 5, device=device).T, normal(5, 6, device=device)[:, ::2]
    assert_agrees(fused(HALVES), [s, a])
    assert_agrees(fused(HALVES), parts_of(HALVES, 0, 4, device=device))
    ss, sa, as_, aa = parts_of(TRANSFORMS[4], 2, 4, 5, device=device)
    assert_agrees(
        fused(TRANSFORMS[4]), [ss.flip(1), sa.mT.contiguous().mT, as_.transpose(0, 1).transpose(0, 1), aa]
    )


def test_large_values_stay_finite(device):
    s = torch.tensor([-300.0, -30.0, 0.0, 30.0, 300.0], device=device).requires_grad_()
    for kind in KINDS:
        assert_agrees(fused(HALVES, kind), [s, normal(5, dtype=torch.float32, device=device)])


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(device, kind):
    parts = parts_of(HALVES, 1, 2, device=device)
    assert gradcheck(lambda s, a: gelu((s, a), HALVES, kind, "fused"), parts)


@pytest.mark.parametrize("transform", SEVERAL)
def test_operators_and_traces(device, transform):
    given = parts_of(transform, 2, 3, dtype=torch.float32, device=device)
    check_operator(torch.ops.flopbench.gelu.default, given, *transform.lists, "gelu")
    assert_traceable(fused(transform), given)
