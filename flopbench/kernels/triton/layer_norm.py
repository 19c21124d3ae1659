"""Layer norm of all parts of a feature in one kernel, alone or of a sum with a residual branch; its gradient.

Timed forward (reports/gpu-h200.md): of halves about as fast as what inductor makes of the eager operations or
slower, with the residual sum about half as fast; of octic parts faster. With gradients not timed. A row of
all parts is held in registers, so the norm reads every element once and writes it (the eager operations, a
kernel each, move some 12 elements for each, partly in fp32). With the residual sum it reads two and writes
two. The gradient recomputes the statistics: it reads two and writes one, or four and two with a scaled
residual sum. All are bound by memory: 1 to 2 operations a byte, where an H100 has 20 in fp32.

An irrep of dimension d has d parts of d slices of channels. Slices are of one width, whatever that of parts:
all tiles are alike, and are added up before threads exchange anything. The first irrep is the trivial one.
"""

# ruff: noqa: ANN001, ANN201, N803
# Triton declares its constants by a type that has no length, and its unrolled range as what never returns.
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false, reportGeneralTypeIssues=false

from functools import cache, reduce
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from flopbench.kernels.layer_norm import irreps_of_parts
from flopbench.kernels.operator import operator
from flopbench.kernels.triton import INTERPRETED, Slices, launch, programs, tiles, total, wide

# How many elements of all parts a program holds: 16 per thread of 8 warps, and few for the interpreter.
_TILE = 128 if INTERPRETED else 4096


@triton.jit
def _load(ptr, at, inside, WIDE: tl.constexpr):
    return tl.load(ptr + at, mask=inside, other=0.0).to(WIDE)


@triton.jit
def _place(row, column, k, SLICE: tl.constexpr, OF: tl.constexpr, CHANNELS: tl.constexpr):
    """Where the k-th slice of some rows is in its part."""
    return (row * OF[k] + SLICE[k]) * CHANNELS + column


@triton.jit
def _sum(x):
    y = x[0]
    for k in tl.static_range(1, len(x)):
        y += x[k]
    return y


@triton.jit
def _centred(x, inside, SLICE: tl.constexpr, OF: tl.constexpr, CHANNELS: tl.constexpr):
    """Each part without its mean."""
    y = ()
    for k in tl.static_range(len(x)):
        if SLICE[k] == 0:
            whole = x[k]
            for j in tl.static_range(k + 1, len(x)):
                if j < k + OF[k]:
                    whole += x[j]
            mean = total(whole, 1) / (OF[k] * CHANNELS)
        y += (tl.where(inside, x[k] - mean, 0.0),)
    return y


@triton.jit
def _scale(x, OF: tl.constexpr, CHANNELS: tl.constexpr, EPS: tl.constexpr):
    """1/σ of what is centred. The variance of a part of d slices is a mean over as many, and counts 1/d."""
    squares = x[0] * x[0] * (1 / (OF[0] * OF[0]))
    for k in tl.static_range(1, len(x)):
        squares += x[k] * x[k] * (1 / (OF[k] * OF[k]))
    return tl.rsqrt((total(squares, 1) / CHANNELS + EPS) / len(x))


@triton.jit
def _added(sums, x, AT: tl.constexpr):
    """`sums` with x in the one at AT."""
    y = ()
    for i in tl.static_range(len(sums)):
        y += ((sums[i] + x) if i == AT else sums[i],)
    return y


@triton.jit
def layer_norm_kernel(
    x,
    branch,
    gammas,
    gains,
    bias,
    sums,
    outs,
    rows,
    SLICE: tl.constexpr,
    OF: tl.constexpr,
    SHARED: tl.constexpr,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """ROWS rows of all parts; tuples are empty of what there is not (branch, its scales).

    Tensors are by slice, those of parameters by slice of an irrep; SHARED are these of the feature's slices.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    known = column < CHANNELS
    inside = (row < rows) & known
    slices = ()
    for k in tl.static_range(len(x)):
        at = _place(row, column, k, SLICE, OF, CHANNELS)
        one = _load(x[k], at, inside, WIDE)
        if len(branch) > 0:
            added = _load(branch[k], at, inside, WIDE)
            if len(gammas) > 0:
                added = added * _load(gammas[SHARED[k]], SLICE[k] * CHANNELS + column, known, WIDE)
            # What is normalised is the sum as it is stored: the gradient reads that.
            one = (one + added).to(sums[k].dtype.element_ty)
            tl.store(sums[k] + at, one, mask=inside)
            one = one.to(WIDE)
        slices += (one,)
    slices = _centred(slices, inside, SLICE, OF, CHANNELS)
    scale = _scale(slices, OF, CHANNELS, EPS)
    for k in tl.static_range(len(x)):
        out = slices[k] * scale * _load(gains[SHARED[k]], SLICE[k] * CHANNELS + column, known, WIDE)
        if k == 0:
            out += _load(bias, column, known, WIDE)
        tl.store(outs[k] + _place(row, column, k, SLICE, OF, CHANNELS), out, mask=inside)


@triton.jit
def layer_norm_backward_kernel(
    grads,
    x,
    gains,
    through,
    branch,
    gammas,
    outs,
    out_branch,
    partial,
    rows,
    SLICE: tl.constexpr,
    OF: tl.constexpr,
    SHARED: tl.constexpr,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Every so many rows: gradients of what went in, and this program's share of those of the parameters.

    With x̂ = x'/σ and g = γ · grad: c = Σ g x̂ over all parts, and in a part of d slices of n channels
    grad x = (g − mean(g) − x̂ c / (d² n Σ d²)) / σ. `through` is what the sum's other uses send back.
    """
    column = tl.arange(0, BLOCK)[None, :]
    known = column < CHANNELS
    factors = ()
    for i in tl.static_range(len(gains)):
        factors += (_load(gains[i], VECTOR[i] * CHANNELS + column, known, WIDE),)
    sum_gains = (tl.full((ROWS, BLOCK), 0.0, WIDE),) * len(gains)
    sum_gammas = (tl.full((ROWS, BLOCK), 0.0, WIDE),) * len(gammas)
    sum_bias = tl.full((ROWS, BLOCK), 0.0, WIDE)
    for first in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        row = first + tl.arange(0, ROWS)[:, None].to(tl.int64)
        inside = (row < rows) & known
        slices = ()
        for k in tl.static_range(len(x)):
            slices += (_load(x[k], _place(row, column, k, SLICE, OF, CHANNELS), inside, WIDE),)
        slices = _centred(slices, inside, SLICE, OF, CHANNELS)
        scale = _scale(slices, OF, CHANNELS, EPS)
        normed = ()
        slopes = ()
        products = ()
        for k in tl.static_range(len(x)):
            y = slices[k] * scale
            g = _load(grads[k], _place(row, column, k, SLICE, OF, CHANNELS), inside, WIDE)
            sum_gains = _added(sum_gains, g * y, SHARED[k])
            if k == 0:
                sum_bias += g
            g *= factors[SHARED[k]]
            products += (g * y,)
            normed += (y,)
            slopes += (g,)
        common = total(_sum(products), 1) / (CHANNELS * len(x))
        slopes = _centred(slopes, inside, SLICE, OF, CHANNELS)
        for k in tl.static_range(len(x)):
            at = _place(row, column, k, SLICE, OF, CHANNELS)
            g = (slopes[k] - normed[k] * common * (1 / (OF[k] * OF[k]))) * scale
            if len(through) > 0:
                g += _load(through[k], at, inside, WIDE)
            tl.store(outs[k] + at, g, mask=inside)
            if len(gammas) > 0:
                sum_gammas = _added(sum_gammas, g * _load(branch[k], at, inside, WIDE), SHARED[k])
                gamma = _load(gammas[SHARED[k]], SLICE[k] * CHANNELS + column, known, WIDE)
                tl.store(out_branch[k] + at, g * gamma, mask=inside)
    sums = sum_gains
    sums += (sum_bias,)
    sums += sum_gammas
    out = partial + tl.program_id(0) * len(sums) * CHANNELS + column
    for i in tl.static_range(len(sums)):
        tl.store(out + i * CHANNELS, total(sums[i], 0), mask=known)


@cache
def _shape(
    dimensions: tuple[int, ...], channels: int, eps: float, wide: tl.dtype
) -> tuple[Slices, Slices, dict[str, Any]]:
    """The slices of the feature, those of a vector of every irrep, and what the kernels are compiled for.

    Args:
        dimensions: of the irreps.
        channels: of a slice, which is what the first part is.
        eps: ε.
        wide: what is computed in.
    """
    irreps = irreps_of_parts(dimensions)
    slices, vectors = Slices.of_parts([dimensions[i] for i in irreps]), Slices.of_parts(dimensions)
    first = [vectors.part.index(i) for i in irreps]
    block = triton.next_power_of_2(channels)
    size = triton.next_power_of_2(len(slices.at)) * block
    rows = max(1, _TILE // size)
    meta = {
        "SLICE": slices.at,
        "OF": slices.of,
        "SHARED": tuple(first[p] + j for p, j in zip(slices.part, slices.at, strict=True)),
        "VECTOR": vectors.at,
        "CHANNELS": channels,
        "EPS": eps,
        "ROWS": rows,
        "BLOCK": block,
        "WIDE": wide,
        "num_warps": 8 if rows * size >= 4096 else 4,
    }
    return slices, vectors, meta


def _like(tensors):
    return [x.new_empty(x.shape) for x in tensors]


def _outs(x, branch, gammas, affine, dimensions, eps):
    if not branch:
        return _like(x)
    sums = []
    for p, irrep in enumerate(irreps_of_parts(dimensions)):
        added = x[p], branch[p], *gammas[irrep : irrep + 1]
        sums.append(x[p].new_empty(x[p].shape, dtype=reduce(torch.promote_types, [y.dtype for y in added])))
    return sums + _like(sums)


def _save(ctx, inputs, output):
    x, branch, gammas, affine, ctx.dimensions, ctx.eps = inputs
    normalised = output[: len(x)] if branch else x
    ctx.save_for_backward(*normalised, *(branch if gammas else ()), *gammas, *affine[:-1])


def _gradient(ctx, grads):
    saved, parts, irreps = list(ctx.saved_tensors), sum(ctx.dimensions), len(ctx.dimensions)
    x, branch, gains = saved[:parts], saved[parts:-irreps], saved[-irreps:]
    branch, gammas = branch[:parts], branch[parts:]
    got = layer_norm_parts_backward(grads, x, branch, gammas, gains, ctx.dimensions, ctx.eps)
    last = len(x + branch)
    # Without scales the branch has the gradients of the sums.
    of_branch = got[last - parts : last] if len(grads) > parts else []
    return got[:parts], of_branch, got[last + irreps + 1 :], got[last : last + irreps + 1], None, None


@operator(fake=_outs, save=_save, gradient=_gradient)
def layer_norm_parts(
    x: list[Tensor],
    branch: list[Tensor],
    gammas: list[Tensor],
    affine: list[Tensor],
    dimensions: list[int],
    eps: float,
) -> list[Tensor]:
    """`flopbench.kernels.layer_norm.layer_norm_parts`; with a branch `add_layer_norm_parts`."""
    outs = _outs(x, branch, gammas, affine, dimensions, eps)
    normed = outs[-len(x) :]
    slices, vectors, meta = _shape(tuple(dimensions), x[0].shape[-1], eps, wide(normed[0]))
    rows = x[0].numel() // max(1, x[0].shape[-1])
    if rows:
        launch(
            layer_norm_kernel,
            (tiles(rows, meta["ROWS"]),),
            x[0],
            *(slices.of_each(x), slices.of_each(branch)),
            *(vectors.of_each(gammas), vectors.of_each(affine[:-1]), affine[-1].contiguous()),
            *(slices.of_each(outs[: -len(x)]), slices.of_each(normed)),
            rows,
            **meta,
        )
    return outs


def _gradients(grads, x, branch, gammas, gains, dimensions, eps):
    return _like([*x, *branch, *gains, gains[0], *gammas])


@operator(fake=_gradients)
def layer_norm_parts_backward(
    grads: list[Tensor],
    x: list[Tensor],
    branch: list[Tensor],
    gammas: list[Tensor],
    gains: list[Tensor],
    dimensions: list[int],
    eps: float,
) -> list[Tensor]:
    """Gradients of what was normalised, of the branch where it was scaled, of gains, bias and scales.

    Args:
        grads: of the norms, after those of the sums if there are sums.
        x: the parts that were normalised.
        branch: those that were scaled, or nothing.
        gammas: their scales, one of each irrep, or nothing.
        gains: γ of each irrep.
        dimensions: of the irreps.
        eps: ε.
    """
    outs = _like([*x, *branch])
    slices, vectors, meta = _shape(tuple(dimensions), x[0].shape[-1], eps, wide(x[0]))
    rows = x[0].numel() // max(1, x[0].shape[-1])
    count = programs(x[0].device, tiles(rows, meta["ROWS"]))
    dtype = torch.float64 if x[0].dtype == torch.float64 else torch.float32
    widths = [y.shape[0] for y in (*gains, gains[0], *gammas)]
    partial = x[0].new_empty(count, sum(widths), dtype=dtype)
    if rows:
        launch(
            layer_norm_backward_kernel,
            (count,),
            x[0],
            *(slices.of_each(grads[-len(x) :]), slices.of_each(x), vectors.of_each(gains)),
            *(slices.of_each(grads[: -len(x)]), slices.of_each(branch), vectors.of_each(gammas)),
            *(slices.of_each(outs[: len(x)]), slices.of_each(outs[len(x) :]), partial),
            rows,
            **meta,
        )
    # Copies: an operator's outputs must not share memory.
    return outs + [one.to(gains[0].dtype, copy=True) for one in partial.sum(0).split(widths)]
