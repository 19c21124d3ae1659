"""Layer norm of both halves in one kernel, alone or of a sum with a residual branch; and its gradient.

Not timed on a GPU yet. A row of both halves is held in registers, so the norm reads 2 tensors `[..., C/2]`
and writes 2 (the eager operations, a kernel each, move some 24 of them, partly in fp32). With the residual
sum it reads 4 and writes 4. The gradient recomputes the statistics: it reads 4 and writes 2, or 8 and 4 with
a scaled residual sum. All are bound by memory: 1 to 2 operations a byte, where an H100 has 20 in fp32.
"""

# ruff: noqa: ANN001, ANN201, N803

from functools import cache, reduce
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from flopbench.kernels.operator import operator
from flopbench.kernels.triton import INTERPRETED, launch, programs, tiles, total, wide

# Elements of either half that a program holds: 8 a thread of 8 warps, and few for the interpreter.
_TILE = 64 if INTERPRETED else 2048


@triton.jit
def _load(ptr, at, inside, WIDE: tl.constexpr):
    return tl.load(ptr + at, mask=inside, other=0.0).to(WIDE)


@triton.jit
def _branch(ptr, gamma_ptr, at, column, inside, HALF: tl.constexpr, WIDE: tl.constexpr):
    branch = _load(ptr, at, inside, WIDE)
    if gamma_ptr is not None:
        branch = branch * _load(gamma_ptr, column, column < HALF, WIDE)
    return branch


@triton.jit
def _centred(x, inside, HALF: tl.constexpr):
    return tl.where(inside, x - total(x, 1) / HALF, 0.0)


@triton.jit
def _scale(s, a, HALF: tl.constexpr, EPS: tl.constexpr):
    return tl.rsqrt((total(s * s + a * a, 1) / HALF + EPS) / 2)


@triton.jit
def layer_norm_halves_kernel(
    s_ptr,
    a_ptr,
    branch_s_ptr,
    branch_a_ptr,
    gamma_s_ptr,
    gamma_a_ptr,
    gain_s_ptr,
    gain_a_ptr,
    bias_ptr,
    sum_s_ptr,
    sum_a_ptr,
    out_s_ptr,
    out_a_ptr,
    rows,
    HALF: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """ROWS rows of both halves; None for the pointers of what there is not (branch, its scale)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < HALF)
    at = row * HALF + column
    s = _load(s_ptr, at, inside, WIDE)
    a = _load(a_ptr, at, inside, WIDE)
    if branch_s_ptr is not None:
        s += _branch(branch_s_ptr, gamma_s_ptr, at, column, inside, HALF, WIDE)
        a += _branch(branch_a_ptr, gamma_a_ptr, at, column, inside, HALF, WIDE)
        # What is normalised is the sum as it is stored: the gradient reads that.
        s = s.to(sum_s_ptr.dtype.element_ty)
        a = a.to(sum_a_ptr.dtype.element_ty)
        tl.store(sum_s_ptr + at, s, mask=inside)
        tl.store(sum_a_ptr + at, a, mask=inside)
        s = s.to(WIDE)
        a = a.to(WIDE)
    s = _centred(s, inside, HALF)
    a = _centred(a, inside, HALF)
    scale = _scale(s, a, HALF, EPS)
    gain_s = _load(gain_s_ptr, column, column < HALF, WIDE)
    gain_a = _load(gain_a_ptr, column, column < HALF, WIDE)
    bias = _load(bias_ptr, column, column < HALF, WIDE)
    tl.store(out_s_ptr + at, s * scale * gain_s + bias, mask=inside)
    tl.store(out_a_ptr + at, a * scale * gain_a, mask=inside)


@triton.jit
def layer_norm_halves_backward_kernel(
    grad_s_ptr,
    grad_a_ptr,
    s_ptr,
    a_ptr,
    gain_s_ptr,
    gain_a_ptr,
    through_s_ptr,
    through_a_ptr,
    branch_s_ptr,
    branch_a_ptr,
    gamma_s_ptr,
    gamma_a_ptr,
    out_s_ptr,
    out_a_ptr,
    out_branch_s_ptr,
    out_branch_a_ptr,
    partial_ptr,
    rows,
    HALF: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Every so many rows: gradients of what went in, and this program's share of those of the parameters.

    With x̂ = s'/σ, g = γ_s · grad_s and the same for a: c = Σ g x̂ over both halves, and
    grad s = (g − mean(g) − x̂ c / C) / σ. `through` is what the sum's other uses send back.
    """
    column = tl.arange(0, BLOCK)[None, :]
    known = column < HALF
    gain_s = _load(gain_s_ptr, column, known, WIDE)
    gain_a = _load(gain_a_ptr, column, known, WIDE)
    sum_gain_s = tl.full((ROWS, BLOCK), 0.0, WIDE)
    sum_gain_a = tl.full((ROWS, BLOCK), 0.0, WIDE)
    sum_bias = tl.full((ROWS, BLOCK), 0.0, WIDE)
    sum_gamma_s = tl.full((ROWS, BLOCK), 0.0, WIDE)
    sum_gamma_a = tl.full((ROWS, BLOCK), 0.0, WIDE)
    for first in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        row = first + tl.arange(0, ROWS)[:, None].to(tl.int64)
        inside = (row < rows) & known
        at = row * HALF + column
        s = _centred(_load(s_ptr, at, inside, WIDE), inside, HALF)
        a = _centred(_load(a_ptr, at, inside, WIDE), inside, HALF)
        scale = _scale(s, a, HALF, EPS)
        s *= scale
        a *= scale
        g_s = _load(grad_s_ptr, at, inside, WIDE)
        g_a = _load(grad_a_ptr, at, inside, WIDE)
        sum_gain_s += g_s * s
        sum_gain_a += g_a * a
        sum_bias += g_s
        g_s *= gain_s
        g_a *= gain_a
        common = total(g_s * s + g_a * a, 1) / (2 * HALF)
        g_s = (_centred(g_s, inside, HALF) - s * common) * scale
        g_a = (_centred(g_a, inside, HALF) - a * common) * scale
        if through_s_ptr is not None:
            g_s += _load(through_s_ptr, at, inside, WIDE)
            g_a += _load(through_a_ptr, at, inside, WIDE)
        tl.store(out_s_ptr + at, g_s, mask=inside)
        tl.store(out_a_ptr + at, g_a, mask=inside)
        if gamma_s_ptr is not None:
            sum_gamma_s += g_s * _load(branch_s_ptr, at, inside, WIDE)
            sum_gamma_a += g_a * _load(branch_a_ptr, at, inside, WIDE)
            tl.store(out_branch_s_ptr + at, g_s * _load(gamma_s_ptr, column, known, WIDE), mask=inside)
            tl.store(out_branch_a_ptr + at, g_a * _load(gamma_a_ptr, column, known, WIDE), mask=inside)
    out = partial_ptr + tl.program_id(0) * 5 * HALF + column
    tl.store(out, total(sum_gain_s, 0), mask=known)
    tl.store(out + HALF, total(sum_gain_a, 0), mask=known)
    tl.store(out + 2 * HALF, total(sum_bias, 0), mask=known)
    if gamma_s_ptr is not None:
        tl.store(out + 3 * HALF, total(sum_gamma_s, 0), mask=known)
        tl.store(out + 4 * HALF, total(sum_gamma_a, 0), mask=known)


def _shape(x: Tensor, eps: float) -> tuple[int, dict[str, Any]]:
    """How many rows, and what the kernels are compiled for."""
    half = x.shape[-1]
    return x.numel() // max(1, half), _meta(half, eps, wide(x))


@cache
def _meta(half: int, eps: float, wide: tl.dtype) -> dict[str, Any]:
    block = triton.next_power_of_2(half)
    rows = max(1, _TILE // block)
    warps = 8 if rows * block >= 2048 else 4
    return {"HALF": half, "EPS": eps, "ROWS": rows, "BLOCK": block, "WIDE": wide, "num_warps": warps}


def _pointers(*lists: list[Tensor]) -> list[Tensor | None]:
    """All of some lists, None for both halves of an empty one."""
    return [x for tensors in lists for x in ([one.contiguous() for one in tensors] or (None, None))]


def _like(tensors):
    return [x.new_empty(x.shape) for x in tensors]


def _outs(x, branch, gammas, affine, eps):
    if not branch:
        return _like(x)
    sums = []
    for added in zip(*filter(None, (x, branch, gammas)), strict=True):
        dtype = reduce(torch.promote_types, [one.dtype for one in added])
        sums.append(added[0].new_empty(added[0].shape, dtype=dtype))
    return sums + _like(sums)


def _save(ctx, inputs, output):
    x, branch, gammas, affine, ctx.eps = inputs
    normalised = output[:2] if branch else x
    ctx.save_for_backward(*normalised, *(branch if gammas else ()), *gammas, *affine[:2])


def _gradient(ctx, grads):
    saved = list(ctx.saved_tensors)
    x, branch, gammas, gains = saved[:2], saved[2:-4], saved[4:-2], saved[-2:]
    got = layer_norm_halves_backward(grads, x, branch, gammas, gains, ctx.eps)
    last = len(x + branch)
    # Without scales the branch has the gradients of the sums.
    of_branch = got[last - 2 : last] if len(grads) == 4 else []
    return got[:2], of_branch, got[last + 3 :], got[last : last + 3], None


@operator(fake=_outs, save=_save, gradient=_gradient)
def layer_norm_halves(
    x: list[Tensor], branch: list[Tensor], gammas: list[Tensor], affine: list[Tensor], eps: float
) -> list[Tensor]:
    """`flopbench.kernels.layer_norm.layer_norm_halves`; with a branch `add_layer_norm_halves`."""
    outs = _outs(x, branch, gammas, affine, eps)
    rows, meta = _shape(outs[-1], eps)
    if rows:
        pointers = _pointers(x, branch, gammas, affine, outs[:-2], outs[-2:])
        launch(layer_norm_halves_kernel, (tiles(rows, meta["ROWS"]),), x[0], *pointers, rows, **meta)
    return outs


def _gradients(grads, x, branch, gammas, gains, eps):
    return _like([*x, *branch, *gains[:1] * (3 + len(gammas))])


@operator(fake=_gradients)
def layer_norm_halves_backward(
    grads: list[Tensor],
    x: list[Tensor],
    branch: list[Tensor],
    gammas: list[Tensor],
    gains: list[Tensor],
    eps: float,
) -> list[Tensor]:
    """Gradients of what was normalised, of the branch where it was scaled, of gains, bias and scales.

    Args:
        grads: of the norms, after those of the sums if there are sums.
        x: what was normalised `[..., C/2]`.
        branch: what was scaled `[..., C/2]`, or nothing.
        gammas: its scales `[C/2]`.
        gains: γ_s and γ_a `[C/2]`.
        eps: ε.
    """
    outs = _like([*x, *branch])
    rows, meta = _shape(x[0], eps)
    count = programs(x[0].device, tiles(rows, meta["ROWS"]))
    dtype = torch.float64 if x[0].dtype == torch.float64 else torch.float32
    partial = x[0].new_empty(count, 5, x[0].shape[-1], dtype=dtype)
    if rows:
        lists = grads[-2:], x, gains, grads[:-2], branch, gammas, outs[:2], outs[2:]
        launch(layer_norm_halves_backward_kernel, (count,), x[0], *_pointers(*lists), partial, rows, **meta)
    # Copies: an operator's outputs must not share memory.
    return outs + [one.to(gains[0].dtype, copy=True) for one in partial[:, : 3 + len(gammas)].sum(0)]
