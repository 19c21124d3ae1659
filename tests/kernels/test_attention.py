"""Attention: which way it is computed, and that every way is the same function."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._inductor.utils import run_and_get_code
from torch.autograd import gradcheck

from flopbench.errors import FlopbenchError
from flopbench.kernels import attention as module
from flopbench.kernels.attention import ATTENTION, attention, attention_parts, by_heads, unfused_attention
from flopbench.kernels.cpp import attention as kernels
from flopbench.kernels.dispatch import choose
from flopbench.models.layers import Attention
from flopbench.symmetries import FLOP, PLAIN, each
from tests.kernels.agreement import (
    DTYPES,
    TOLERANCE,
    assert_agrees,
    assert_traceable,
    check_operator,
    normal,
)

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def heads(tokens=7, dtype=torch.bfloat16, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, tokens, 8, generator=generator).to(device, dtype).unbind(0)
    return q, k, v


def test_either_way_is_softmax_of_scores():
    q, k, v = heads()
    wide = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    for way in (attention, unfused_attention):
        torch.testing.assert_close(way(q, k, v).double(), wide, rtol=0, atol=2e-2)
    exact = unfused_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(exact, wide, rtol=1e-12, atol=1e-12)


def test_scores_stay_in_memory_when_compiled(cpp_compiler):
    """Inductor knows attention when it sees it, and would call the operator that was avoided."""
    with torch.no_grad():
        result, codes = run_and_get_code(torch.compile(unfused_attention, dynamic=False), *heads())
    torch.testing.assert_close(result, unfused_attention(*heads()), rtol=0, atol=2e-2)
    assert "bmm" in codes[0]
    assert "scaled_dot_product" not in codes[0]


# Batch, tokens, heads, channels of a head by part: less than a tile, whole tiles, ragged ones, several parts;
# tokens that fall into several blocks of keys, and of rows that meet all of them.
PARTS = [
    (1, 1, 1, (1,)),
    (2, 6, 3, (16,)),
    (1, 100, 2, (32, 32)),
    (2, 37, 1, (7, 9, 2)),
    (1, 197, 2, (64,)),
    (1, 21, 4, (8, 8, 8, 8, 16, 16)),
    (2, 291, 1, (16,)),
    (1, 1025, 2, (8, 8)),
    (1, 1300, 1, (7, 9, 2)),
]


def in_cpp(qkv, heads):
    return kernels.attention_parts(list(qkv), heads)[:-1]


def parts(batch, tokens, heads, widths, dtype=torch.float64):
    return [normal(batch, tokens, 3 * heads * width, dtype=dtype) for width in widths]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", PARTS)
def test_parts(instructions, shape, dtype):
    given = parts(*shape, dtype=dtype)
    wide = [x.detach().double().requires_grad_() for x in given]
    mixed, expected = in_cpp(given, shape[2]), by_heads(wide, shape[2])
    grads = [torch.randn_like(x) for x in mixed]
    got = torch.autograd.grad(mixed, given, grads)
    right = torch.autograd.grad(expected, wide, [x.double() for x in grads])
    for one, two in zip([*mixed, *got], [*expected, *right], strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), two, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_parts_of_large_scores(cpp_compiler):
    """Exponentials are taken of differences to the largest score, so none overflows and no sum is 0."""
    given = [(100 * x).detach() for x in parts(1, 20, 1, (8,), torch.float32)]
    mixed = in_cpp(given, 1)
    torch.testing.assert_close(mixed, by_heads(given, 1), rtol=1e-4, atol=1e-3)
    assert in_cpp([torch.full_like(given[0], torch.nan)], 1)[0].isnan().all()


def test_parts_whose_largest_score_is_far_from_the_first(instructions):
    """What is summed over a block of keys is brought to the largest score of all blocks."""
    tokens = 700
    growth = torch.linspace(1, 60, tokens).double()[:, None]
    grown = [growth * x.detach() for x in parts(1, tokens, 1, (4, 4))]
    for given in (grown, [x.flip(1) for x in grown]):
        torch.testing.assert_close(in_cpp(given, 1), by_heads(given, 1), rtol=1e-9, atol=1e-9)
    # No score of the first keys is above −∞, as those of a mask are.
    q, k, v = (x.detach() for x in parts(3, tokens, 1, (1,))[0].chunk(3, dim=-1))
    k[:, :500] = -torch.inf
    given = torch.cat([q.abs() + 1, k, v], dim=-1)
    torch.testing.assert_close(in_cpp([given], 1), by_heads([given], 1, unfused_attention))


def test_parts_in_any_layout_and_empty(cpp_compiler):
    strided = [normal(3, 2, 12).detach().transpose(0, 1), normal(2, 3, 24).detach()[..., ::2]]
    torch.testing.assert_close(in_cpp(strided, 2), by_heads([x.contiguous() for x in strided], 2))
    for shape in ((0, 3), (3, 0)):
        given = torch.empty(*shape, 12, requires_grad=True)
        (mixed,) = in_cpp([given], 2)
        assert mixed.shape == (*shape, 4)
        assert torch.autograd.grad(mixed.sum(), given)[0].shape == given.shape


QKV = torch.ones(2, 5, 12)


@pytest.mark.parametrize(
    ("qkv", "heads", "message"),
    [
        ([QKV], 0, "at least one head, got 0"),
        ([QKV], 3, "q, k and v of 3 heads side by side, got 12 channels"),
        ([QKV, QKV[..., :8]], 1, "got 8 channels"),
        ([QKV, QKV[..., :0]], 1, "got 0 channels"),
        ([QKV, QKV[:1]], 2, r"parts of shape \[2, 5, 12\], got \[1, 5, 12\]"),
        ([QKV, QKV[:, :4]], 2, r"parts of shape \[2, 5, 12\], got \[2, 4, 12\]"),
        ([QKV[0]], 2, r"parts \[batch, tokens, channels\], got \[5, 12\]"),
        ([QKV, QKV.double()], 2, "tensors of Float on a CPU, got one of Double"),
        ([QKV.half()], 2, "fp32 or fp64, got Half"),
    ],
)
def test_parts_that_do_not_fit_are_refused(cpp_compiler, qkv, heads, message):
    with pytest.raises(RuntimeError, match=message):
        kernels.attention_parts(qkv, heads)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.flopbench.attention_parts_backward(qkv, qkv, qkv, QKV, heads)


@pytest.mark.parametrize("wrong", range(4))
def test_gradients_of_parts_that_do_not_fit_are_refused(cpp_compiler, wrong):
    *mixed, normaliser = kernels.attention_parts([QKV, QKV], 2)
    given = [mixed, mixed, normaliser]
    gradient = torch.ops.flopbench.attention_parts_backward
    gradient(given[0], [QKV, QKV], *given[1:], 2)
    refused = [mixed[:1], [mixed[0], QKV], normaliser[:, :1], normaliser.double()][wrong]
    given[min(wrong, 2)] = refused
    with pytest.raises(RuntimeError, match="got"):
        gradient(given[0], [QKV, QKV], *given[1:], 2)


def test_parts_gradcheck_and_operator(cpp_compiler):
    assert gradcheck(lambda *given: tuple(in_cpp(given, 2)), parts(1, 3, 2, (2, 1)))
    given = parts(2, 5, 2, (3, 4), torch.float32)
    check_operator(torch.ops.flopbench.attention_parts.default, given, 2)


@pytest.mark.parametrize("symmetry", [PLAIN, FLOP])
def test_compiled_networks_take_parts_and_exported_ones_do_not(symmetry, no_triton, monkeypatch):
    monkeypatch.setattr(module, "_threads", lambda: 1)
    layer = Attention(symmetry, 16, 2, fused=True)
    x = torch.randn(2, 5, 16)
    feature = x if symmetry is PLAIN else symmetry.patch_embed(1, 16, 2)(torch.randn(2, 1, 2, 10))
    feature = each(lambda part: part.detach().reshape(2, 5, -1), feature)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    torch.testing.assert_close(torch.compile(layer, backend=backend, fullgraph=True)(feature), layer(feature))
    targets = [str(node.target) for node in graphs[0].graph.nodes]
    assert any("attention_parts" in target for target in targets)
    exported = torch.export.export(layer, (feature,))
    assert not any("flopbench" in str(node.target) for node in exported.graph.nodes)


# Batch, tokens, heads, channels of a head by part, how many parts. In the interpreter a block is 16 by 16.
HALVES = [(1, 1, 1, 16, 1), (2, 5, 3, 4, 2), (1, 32, 1, 16, 2), (1, 33, 2, 8, 2), (1, 17, 1, 20, 2)]


def mixed(heads):
    return lambda *given: attention_parts(given[:-1], heads, given[-1])


def qkv_of(batch, tokens, heads, width, count, **options) -> Any:
    return [normal(batch, tokens, 3 * heads * width, **options) for _ in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", HALVES)
def test_in_triton(device, shape, dtype):
    assert_agrees(mixed(shape[2]), qkv_of(*shape, dtype=dtype, device=device))


def test_in_triton_of_any_layout_and_empty(device):
    strided = [normal(5, 2, 24, device=device).transpose(0, 1), normal(2, 5, 48, device=device)[..., ::2]]
    assert_agrees(mixed(2), [x.detach().requires_grad_() for x in strided])
    for shape in ((0, 3, 12), (3, 0, 12)):
        given = torch.empty(shape, device=device, requires_grad=True)
        out = torch.ops.flopbench.flash_attention_parts([given], 2)[0]
        assert torch.autograd.grad(out.sum(), given)[0].shape == shape


def test_in_triton_of_large_scores(device):
    """Exponentials are of differences, also where the last block has fewer keys than columns."""
    given = [(100 * x).detach() for x in qkv_of(1, 5, 1, 8, 2, device=device)]
    assert_agrees(mixed(1), [x.requires_grad_() for x in given])
    # All scores are far below zero, where a key that there is not would have the largest.
    q, k, v = torch.full((1, 5, 8), 50.0), torch.full((1, 5, 8), -50.0), torch.randn(1, 5, 8)
    # Rows that there are not overflow, and are not stored.
    with np.errstate(over="ignore", invalid="ignore"):
        assert_agrees(mixed(1), [torch.cat([q, k, v], -1).double().to(device).requires_grad_()])


def test_in_triton_one_half_may_go_unused(device):
    given = qkv_of(1, 5, 2, 4, 2, device=device)
    ours, expected = (
        torch.autograd.grad(attention_parts(given, 2, impl)[0].square().sum(), given)
        for impl in ("triton", "eager")
    )
    torch.testing.assert_close(ours, expected)


def test_in_triton_gradcheck_operator_and_tracing(device):
    given = qkv_of(1, 3, 1, 4, 2, device=device)
    assert gradcheck(lambda *given: tuple(mixed(1)(*given, "triton")), given, fast_mode=True)
    check_operator(torch.ops.flopbench.flash_attention_parts.default, given, 1)
    assert_traceable(mixed(1), given)


def test_what_triton_leaves(device):
    for given, reason in (
        (qkv_of(1, 3, 1, 65, 2), "more than 128 channels per head"),
        ([torch.empty(1, 3, 12), torch.empty(1, 3, 24)], "parts of unlike shapes"),
    ):
        assert choose(ATTENTION, "fused", given, 1).name != "triton"
        with pytest.raises(FlopbenchError, match=reason):
            choose(ATTENTION, "triton", given, 1)
    assert choose(ATTENTION, "triton", qkv_of(1, 3, 1, 4, 3), 1).reason == "triton: written for 1 and 2 parts"
    assert choose(ATTENTION, "fused", qkv_of(1, 3, 1, 64, 2), 1).name == "triton"
    assert choose(ATTENTION, "auto", qkv_of(1, 3, 1, 64, 2), 1).name != "triton"
