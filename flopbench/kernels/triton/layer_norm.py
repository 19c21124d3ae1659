"""Layer norm of both halves in one kernel, alone or of a sum with a residual branch; and its gradient.

Not timed on a GPU yet. A row of both halves is held in registers, so the norm reads 2 tensors `[..., C/2]`
and writes 2 (the eager operations, a kernel each, move some 24 of them, partly in fp32). With the residual
sum it reads 4 and writes 4. The gradient recomputes the statistics: it reads 4 and writes 2, or 8 and 4 with
a scaled residual sum. All are bound by memory: 1 to 2 operations a byte, where an H100 has 20 in fp32.
"""

# ruff: noqa: ANN001, ANN201, N803

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from flopbench.kernels.triton import INTERPRETED, launch, programs, total, wide

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
    block = triton.next_power_of_2(half)
    rows = max(1, _TILE // block)
    return x.numel() // max(1, half), {
        "HALF": half,
        "EPS": eps,
        "ROWS": rows,
        "BLOCK": block,
        "WIDE": wide(x),
        "num_warps": 8 if rows * block >= 2048 else 4,
    }


def _forward(
    x: tuple[Tensor, Tensor],
    branch: tuple[Tensor | None, Tensor | None],
    gamma: tuple[Tensor | None, Tensor | None],
    affine: tuple[Tensor, Tensor, Tensor],
    sums: tuple[Tensor | None, Tensor | None],
    outs: tuple[Tensor, Tensor],
    eps: float,
) -> None:
    rows, meta = _shape(outs[0], eps)
    if rows:
        grid = (triton.cdiv(rows, meta["ROWS"]),)
        args = map(_dense, (*x, *branch, *gamma, *affine))
        launch(layer_norm_halves_kernel, grid, outs[0], *args, *sums, *outs, rows, **meta)


def _dense(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _backward(
    grads: tuple[Tensor, Tensor],
    x: tuple[Tensor, Tensor],
    gains: tuple[Tensor, Tensor],
    through: tuple[Tensor | None, Tensor | None],
    branch: tuple[Tensor | None, Tensor | None],
    gamma: tuple[Tensor | None, Tensor | None],
    outs: list[Tensor],
    eps: float,
) -> Tensor:
    """Fills `outs`; returns the gradients of the gains, the bias and the scales `[5, C/2]`."""
    rows, meta = _shape(x[0], eps)
    count = programs(x[0].device, triton.cdiv(rows, meta["ROWS"]))
    dtype = torch.float64 if x[0].dtype == torch.float64 else torch.float32
    partial = x[0].new_empty(count, 5, x[0].shape[-1], dtype=dtype)
    if rows:
        args = map(_dense, (*grads, *x, *gains, *through, *branch, *gamma))
        pointers = (*outs, None, None)[:4]
        launch(layer_norm_halves_backward_kernel, (count,), x[0], *args, *pointers, partial, rows, **meta)
    return partial[:, : 5 if gamma[0] is not None else 3].sum(0)


@custom_op("flopbench::layer_norm_halves", mutates_args=())
def layer_norm_halves(
    s: Tensor, a: Tensor, gain_s: Tensor, gain_a: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """`flopbench.kernels.layer_norm.layer_norm_halves`."""
    outs = _like(s), _like(a)
    _forward((s, a), (None, None), (None, None), (gain_s, gain_a, bias), (None, None), outs, eps)
    return outs


@custom_op("flopbench::layer_norm_halves_backward", mutates_args=())
def layer_norm_halves_backward(
    grad_s: Tensor, grad_a: Tensor, s: Tensor, a: Tensor, gain_s: Tensor, gain_a: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of s, a, the gains and the bias."""
    outs = [_like(s), _like(a)]
    none = (None, None)
    sums = _backward((grad_s, grad_a), (s, a), (gain_s, gain_a), none, none, none, outs, eps)
    return outs[0], outs[1], *(x.to(gain_s.dtype, copy=True) for x in sums)  # pyright: ignore[reportReturnType]


@custom_op("flopbench::add_layer_norm_halves", mutates_args=())
def add_layer_norm_halves(
    s: Tensor,
    a: Tensor,
    branch_s: Tensor,
    branch_a: Tensor,
    gamma_s: Tensor | None,
    gamma_a: Tensor | None,
    gain_s: Tensor,
    gain_a: Tensor,
    bias: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`flopbench.kernels.layer_norm.add_layer_norm_halves`: the sums of both halves, then their norms."""
    sums = _sums(s, branch_s, gamma_s), _sums(a, branch_a, gamma_a)
    outs = _like(sums[0]), _like(sums[1])
    _forward((s, a), (branch_s, branch_a), (gamma_s, gamma_a), (gain_s, gain_a, bias), sums, outs, eps)
    return *sums, *outs


@custom_op("flopbench::add_layer_norm_halves_backward", mutates_args=())
def add_layer_norm_halves_backward(
    through_s: Tensor,
    through_a: Tensor,
    grad_s: Tensor,
    grad_a: Tensor,
    s: Tensor,
    a: Tensor,
    branch_s: Tensor | None,
    branch_a: Tensor | None,
    gamma_s: Tensor | None,
    gamma_a: Tensor | None,
    gain_s: Tensor,
    gain_a: Tensor,
    eps: float,
) -> list[Tensor]:
    """Gradients of the sums (s and a are those), gains and bias; of the branch and γ where there is γ."""
    outs = [_like(x) for x in (s, a, branch_s, branch_a) if x is not None]
    parameters = _backward(
        (grad_s, grad_a),
        (s, a),
        (gain_s, gain_a),
        (through_s, through_a),
        (branch_s, branch_a),
        (gamma_s, gamma_a),
        outs,
        eps,
    )
    # Copies: an operator's outputs must not share memory.
    sums = [x.to(gain_s.dtype, copy=True) for x in parameters]
    return [*outs[:2], *sums[:3], *outs[2:], *sums[3:]]


def _like(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _sums(x: Tensor, branch: Tensor, gamma: Tensor | None) -> Tensor:
    dtype = torch.promote_types(x.dtype, branch.dtype)
    return x.new_empty(x.shape, dtype=dtype if gamma is None else torch.promote_types(dtype, gamma.dtype))


@layer_norm_halves.register_fake
def _(s, a, gain_s, gain_a, bias, eps):
    return _like(s), _like(a)


@layer_norm_halves_backward.register_fake
def _(grad_s, grad_a, s, a, gain_s, gain_a, eps):
    return _like(s), _like(a), _like(gain_s), _like(gain_a), _like(gain_s)


@add_layer_norm_halves.register_fake
def _(s, a, branch_s, branch_a, gamma_s, gamma_a, gain_s, gain_a, bias, eps):
    sums = _sums(s, branch_s, gamma_s), _sums(a, branch_a, gamma_a)
    return *sums, _like(sums[0]), _like(sums[1])


@add_layer_norm_halves_backward.register_fake
def _(through_s, through_a, grad_s, grad_a, s, a, branch_s, branch_a, gamma_s, gamma_a, gain_s, gain_a, eps):
    parts = [s, a, gain_s, gain_a, gain_s]
    return [_like(x) for x in (parts if gamma_s is None else [*parts, branch_s, branch_a, gain_s, gain_a])]


def _save_norm(ctx, inputs, output) -> None:
    s, a, gain_s, gain_a, _, ctx.eps = inputs
    ctx.save_for_backward(s, a, gain_s, gain_a)


def _norm_gradient(ctx, grad_s, grad_a):
    return *layer_norm_halves_backward(grad_s, grad_a, *ctx.saved_tensors, ctx.eps), None


def _save_add_norm(ctx, inputs, output) -> None:
    s, _, branch_s, branch_a, gamma_s, gamma_a, gain_s, gain_a, _, ctx.eps = inputs
    branch = (None, None) if gamma_s is None else (branch_s, branch_a)
    ctx.dtypes = s.dtype, branch_s.dtype
    ctx.save_for_backward(output[0], output[1], *branch, gamma_s, gamma_a, gain_s, gain_a)


def _add_norm_gradient(ctx, *grads):
    got = add_layer_norm_halves_backward(*grads, *ctx.saved_tensors, ctx.eps)
    dtype, branch_dtype = ctx.dtypes
    s, a, gain_s, gain_a, bias = got[:5]
    branch_s, branch_a, *gammas = got[5:] or (s, a, None, None)
    branch = branch_s.to(branch_dtype), branch_a.to(branch_dtype)
    return s.to(dtype), a.to(dtype), *branch, *gammas, gain_s, gain_a, bias, None


layer_norm_halves.register_autograd(_norm_gradient, setup_context=_save_norm)
add_layer_norm_halves.register_autograd(_add_norm_gradient, setup_context=_save_add_norm)
