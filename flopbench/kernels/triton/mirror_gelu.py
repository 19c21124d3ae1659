"""The non-linearity on mirror pairs in one kernel, of pairs or of the 4-point transform; and its gradient.

Not timed on a GPU yet. It reads 2 tensors `[..., C/2]` and writes 2, the gradient reads 4 and writes 2; the
eager operations, a kernel each, read and write about 24 forward. Bound by memory: at 8 bytes (bf16) for two
error functions, some 60 operations, it needs less than half of an H100's fp32 rate. Only inputs are kept.
"""

# ruff: noqa: ANN001, ANN201, N803

import triton
import triton.language as tl
from torch import Tensor

from flopbench.kernels.operator import operator
from flopbench.kernels.triton import INTERPRETED, launch, tiles, wide

_BLOCK = 256 if INTERPRETED else 1024
_SQRT_HALF = tl.constexpr(0.5**0.5)
# 1/√(2π)
_DENSITY = tl.constexpr(0.3989422804014327)


@triton.jit
def _load(ptr, at, inside, WIDE: tl.constexpr):
    return tl.load(ptr + at, mask=inside, other=0.0).to(WIDE)


@triton.jit
def _sigmoid(x):
    # Of −|x|, so that nothing overflows.
    small = tl.exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1 + small)


@triton.jit
def value(x, KIND: tl.constexpr):
    """The GELU of a tile."""
    return 0.5 * x * (1 + tl.erf(x * _SQRT_HALF)) if KIND == "gelu" else x * _sigmoid(1.702 * x)


@triton.jit
def _slope(x, KIND: tl.constexpr):
    if KIND == "gelu":
        y = 0.5 * (1 + tl.erf(x * _SQRT_HALF)) + x * tl.exp(-0.5 * x * x) * _DENSITY
    else:
        sigmoid = _sigmoid(1.702 * x)
        y = sigmoid * (1 + 1.702 * x * (1 - sigmoid))
    return y


@triton.jit
def mirror_gelu_kernel(
    s_ptr,
    a_ptr,
    grad_s_ptr,
    grad_a_ptr,
    out_s_ptr,
    out_a_ptr,
    count,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """BLOCK elements of each half: the values or, given gradients of the output, those of the input."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    s = _load(s_ptr, at, inside, WIDE)
    a = _load(a_ptr, at, inside, WIDE)
    plus = (s + a) * _SQRT_HALF
    minus = (s - a) * _SQRT_HALF
    if grad_s_ptr is None:
        plus = value(plus, KIND)
        minus = value(minus, KIND)
    else:
        s = _load(grad_s_ptr, at, inside, WIDE)
        a = _load(grad_a_ptr, at, inside, WIDE)
        plus = (s + a) * _SQRT_HALF * _slope(plus, KIND)
        minus = (s - a) * _SQRT_HALF * _slope(minus, KIND)
    tl.store(out_s_ptr + at, (plus + minus) * _SQRT_HALF, mask=inside)
    tl.store(out_a_ptr + at, (plus - minus) * _SQRT_HALF, mask=inside)


@triton.jit
def mirror_gelu_tokens_kernel(
    ss_ptr,
    sa_ptr,
    as_ptr,
    aa_ptr,
    grad_ss_ptr,
    grad_sa_ptr,
    grad_as_ptr,
    grad_aa_ptr,
    out_ss_ptr,
    out_sa_ptr,
    out_as_ptr,
    out_aa_ptr,
    count,
    SYMMETRIC: tl.constexpr,
    PAIRED: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """BLOCK elements of each quarter. SYMMETRIC and PAIRED are elements of n_s and of n_a tokens.

    What has no partner token is transformed by channel alone: with nothing in sa and aa, both members of
    each channel pair come out twice, and only the factors differ.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    here = at % SYMMETRIC
    paired = inside & (here < PAIRED)
    other = at // SYMMETRIC * PAIRED + here
    # Blocks of the wide type: a choice between two plain numbers would be one in fp32.
    half = tl.full((BLOCK,), 0.5, WIDE)
    before = tl.where(paired, half, _SQRT_HALF)
    after = before * tl.where(paired, 2 * half, half)
    ss = _load(ss_ptr, at, inside, WIDE)
    sa = _load(sa_ptr, other, paired, WIDE)
    as_ = _load(as_ptr, at, inside, WIDE)
    aa = _load(aa_ptr, other, paired, WIDE)
    one = (ss + sa + as_ + aa) * before
    two = (ss - sa + as_ - aa) * before
    three = (ss + sa - as_ - aa) * before
    four = (ss - sa - as_ + aa) * before
    if grad_ss_ptr is None:
        one = value(one, KIND)
        two = value(two, KIND)
        three = value(three, KIND)
        four = value(four, KIND)
    else:
        ss = _load(grad_ss_ptr, at, inside, WIDE)
        sa = _load(grad_sa_ptr, other, paired, WIDE)
        as_ = _load(grad_as_ptr, at, inside, WIDE)
        aa = _load(grad_aa_ptr, other, paired, WIDE)
        # The two factors of the way there and back change places; only their product counts.
        one = (ss + sa + as_ + aa) * before * _slope(one, KIND)
        two = (ss - sa + as_ - aa) * before * _slope(two, KIND)
        three = (ss + sa - as_ - aa) * before * _slope(three, KIND)
        four = (ss - sa - as_ + aa) * before * _slope(four, KIND)
    tl.store(out_ss_ptr + at, (one + two + three + four) * after, mask=inside)
    tl.store(out_sa_ptr + other, (one - two + three - four) * after, mask=paired)
    tl.store(out_as_ptr + at, (one + two - three - four) * after, mask=inside)
    tl.store(out_aa_ptr + other, (one - two - three + four) * after, mask=paired)


def _like(parts, *_):
    return [x.new_empty(x.shape) for x in parts]


def _save(ctx, inputs, output):
    parts, ctx.kind = inputs
    ctx.save_for_backward(*parts)


def _gradient(ctx, grads):
    return mirror_gelu_backward(list(ctx.saved_tensors), grads, ctx.kind), None


@operator(fake=_like, save=_save, gradient=_gradient)
def mirror_gelu(parts: list[Tensor], kind: str) -> list[Tensor]:
    """`flopbench.kernels.mirror_gelu.gelu` of two halves or four quarters."""
    return _run(parts, None, kind)


@operator(fake=_like)
def mirror_gelu_backward(parts: list[Tensor], grads: list[Tensor], kind: str) -> list[Tensor]:
    """Gradients of the parts."""
    return _run(parts, grads, kind)


def _run(parts: list[Tensor], grads: list[Tensor] | None, kind: str) -> list[Tensor]:
    outs = _like(parts)
    count = parts[0].numel()
    if count:
        dense = [x.contiguous() for x in (*parts, *(grads or []))]
        pointers = dense if grads else dense + [None] * len(parts)
        meta = {"KIND": kind, "BLOCK": _BLOCK, "WIDE": wide(parts[0])}
        kernel = mirror_gelu_kernel
        if len(parts) == 4:
            kernel = mirror_gelu_tokens_kernel
            meta |= {"SYMMETRIC": parts[0][0].numel(), "PAIRED": parts[1][0].numel()}
        launch(kernel, (tiles(count, _BLOCK),), parts[0], *pointers, *outs, count, **meta)
    return outs
