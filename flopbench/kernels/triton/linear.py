"""Products of all parts of a feature in one launch, and the GELU in their epilogue.

Not timed on a GPU yet, and not what "auto" runs: the library's products are hard to beat. The arithmetic is
theirs. What is predicted of an H100: both halves' products in one launch have one last, partly filled wave of
tiles where two launches have two, of 132 tiles each; that is what small batches lose. The halves share
neither features nor weights, so one half's tiles all come before the other's, and the cache holds one
weight at a time. With the GELU the accumulators of all parts of a tile are at hand, and the hidden features
are written once, where product and GELU apart write, read and write them: a third of the bytes, for one
part, two halves and four quarters alike.
"""

# ruff: noqa: ANN001, ANN201, N803

from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from flopbench.kernels.operator import operator
from flopbench.kernels.triton import INTERPRETED, launch, tiles, wide
from flopbench.kernels.triton.mirror_gelu import value

tuned = True
"""Whether configs are timed against each other when a shape is new; else the first that fits is taken."""

_SHARED = 227 * 1024
"""Bytes of shared memory that a program may have on Hopper, for which kernels are compiled without a GPU."""


def _config(rows: int, columns: int, inner: int, warps: int, stages: int) -> triton.Config:
    meta = {"ROWS": rows, "COLUMNS": columns, "INNER": inner, "GROUP": 8}
    return triton.Config(meta, num_warps=warps, num_stages=stages)


# For Hopper: 64 rows a warpgroup, 128 bytes of the inner axis a step, two or three steps in flight.
_CONFIGS = [
    _config(64, 64, 64, 4, 3),
    _config(128, 64, 64, 8, 2),
    _config(128, 128, 64, 8, 3),
    _config(128, 256, 64, 8, 3),
]
# Wide types are for checks, not for speed; and some GPU has no room for any of those above.
_SMALL = _config(64, 64, 16, 8, 2)


def _fitting(configs: list[triton.Config], given: dict[str, Any], **meta: Any) -> list[triton.Config]:
    """Those that spill no registers and find room in shared memory with so many parts' accumulators."""
    weight = given["weight_s_ptr"]
    if weight.element_size() > 2:
        return [_SMALL]
    shared = _SHARED
    if weight.is_cuda:
        shared = torch.cuda.get_device_properties(weight.device).shared_memory_per_block_optin
    fitting = [config for config in configs if _fits(config, meta.get("PARTS", 1), shared)] or [_SMALL]
    return fitting if tuned else fitting[:1]


def _fits(config: triton.Config, parts: int, shared: int) -> bool:
    rows, columns, inner = (config.kwargs[name] for name in ("ROWS", "COLUMNS", "INNER"))
    accumulators = parts * rows * columns / (32 * config.num_warps)
    step = 2 * inner * (parts * rows + min(parts, 2) * columns)
    return accumulators <= 128 and config.num_stages * step <= shared


# SIZE is all that a batch changes: another one as large runs what was found best. The interpreter has nothing
# to time, and one config is taken untimed.
_tune = triton.autotune(
    configs=[_config(16, 16, 16, 4, 1)] if INTERPRETED else _CONFIGS,
    key=["size", "out", "inner", "PARTS", "KIND"],
    prune_configs_by={"early_config_prune": _fitting},
)
_jit = triton.jit(do_not_specialize=["rows", "size"])

# The interpreter takes the bits of a bf16 for an integer in its products.
_WIDEN = tl.constexpr(INTERPRETED)
_SQRT_HALF = tl.constexpr(0.5**0.5)


@triton.jit
def _corner(rows, out, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr):
    """The first row and the first column of this program's tile, in 64 bits.

    GROUP tiles below each other come before the next column of tiles: their weights stay in the cache.
    """
    high = (rows + ROWS - 1) // ROWS
    span = GROUP * ((out + COLUMNS - 1) // COLUMNS)
    first = tl.program_id(0) // span * GROUP
    size = tl.minimum(high - first, GROUP)
    within = tl.program_id(0) % span
    return (first + within % size).to(tl.int64) * ROWS, (within // size).to(tl.int64) * COLUMNS


@triton.jit
def _lines(left, inner, LINES: tl.constexpr, INNER: tl.constexpr):
    """Offsets of the first INNER elements of LINES lines, of which so many are left.

    What lies beyond repeats the last line: nothing there is stored, and loads need no mask.
    """
    line = tl.minimum(tl.arange(0, LINES), left - 1).to(tl.int32)
    return line[:, None] * inner + tl.arange(0, INNER)[None, :]


@triton.jit
def _load(ptr, lines, k, inner, INNER: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr):
    """A step of the inner axis; EVEN where steps fill it."""
    if EVEN:
        x = tl.load(ptr + k + lines)
    else:
        x = tl.load(ptr + k + lines, mask=(k + tl.arange(0, INNER))[None, :] < inner, other=0.0)
    return x.to(WIDE) if _WIDEN else x


@triton.jit
def _dot(x, weight, acc, TF32: tl.constexpr):
    return tl.dot(x, weight.T, acc, input_precision="tf32" if TF32 else "ieee", out_dtype=acc.dtype)


@_tune
@_jit
def linear_halves_kernel(
    s_ptr,
    a_ptr,
    weight_s_ptr,
    weight_a_ptr,
    bias_ptr,
    out_s_ptr,
    out_a_ptr,
    rows,
    size,
    out,
    inner,
    EVEN: tl.constexpr,
    TF32: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
):
    """A tile of one half, that of the grid's second axis."""
    row, column = _corner(rows, out, ROWS, COLUMNS, GROUP)
    x_ptr = s_ptr
    weight_ptr = weight_s_ptr
    out_ptr = out_s_ptr
    if tl.program_id(1) == 1:
        x_ptr = a_ptr
        weight_ptr = weight_a_ptr
        out_ptr = out_a_ptr
    x_ptr += row * inner
    weight_ptr += column * inner
    below = _lines(rows - row, inner, ROWS, INNER)
    beside = _lines(out - column, inner, COLUMNS, INNER)
    acc = tl.full((ROWS, COLUMNS), 0.0, WIDE)
    for k in range(0, inner, INNER):
        x = _load(x_ptr, below, k, inner, INNER, EVEN, WIDE)
        acc = _dot(x, _load(weight_ptr, beside, k, inner, INNER, EVEN, WIDE), acc, TF32)
    inside = tl.arange(0, COLUMNS) < out - column
    if bias_ptr is not None:
        symmetric = inside & (tl.program_id(1) == 0)
        bias = tl.load(bias_ptr + column + tl.arange(0, COLUMNS), mask=symmetric, other=0.0)
        acc += bias.to(WIDE)[None, :]
    at = tl.arange(0, ROWS)[:, None] * out + tl.arange(0, COLUMNS)[None, :]
    inside = (tl.arange(0, ROWS) < rows - row)[:, None] & inside[None, :]
    tl.store(out_ptr + row * out + column + at, acc, mask=inside)


@triton.jit
def _sides(x):
    """The left half of the columns and the right half."""
    return x.reshape(x.shape[0], 2, x.shape[1] // 2).permute(0, 2, 1).split()


@triton.jit
def _bias(ptr, left, WIDE: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.arange(0, COLUMNS)
    return tl.load(ptr + column, mask=column < left, other=0.0).to(WIDE)[None, :]


@triton.jit
def _finish(
    ss,
    sa,
    as_,
    aa,
    bias_s_ptr,
    bias_a_ptr,
    out_ss_ptr,
    out_sa_ptr,
    out_as_ptr,
    out_aa_ptr,
    start,
    column,
    below,
    out,
    PARTS: tl.constexpr,
    KIND: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Biases, GELU and stores of some columns of a tile, as `mirror_gelu` has it."""
    ROWS: tl.constexpr = ss.shape[0]
    COLUMNS: tl.constexpr = ss.shape[1]
    row = tl.arange(0, ROWS)[:, None]
    inside = (row < below) & (tl.arange(0, COLUMNS) < out - column)[None, :]
    at = start + column + (row * out + tl.arange(0, COLUMNS)[None, :])
    if bias_s_ptr is not None:
        ss += _bias(bias_s_ptr + column, out - column, WIDE, COLUMNS)
    if bias_a_ptr is not None:
        aa += _bias(bias_a_ptr + column, out - column, WIDE, COLUMNS)
    if PARTS == 1:
        tl.store(out_ss_ptr + at, value(ss, KIND), mask=inside)
    elif PARTS == 2:
        plus = value((ss + as_) * _SQRT_HALF, KIND)
        minus = value((ss - as_) * _SQRT_HALF, KIND)
        tl.store(out_ss_ptr + at, (plus + minus) * _SQRT_HALF, mask=inside)
        tl.store(out_as_ptr + at, (plus - minus) * _SQRT_HALF, mask=inside)
    else:
        one = value((ss + sa + as_ + aa) * 0.5, KIND)
        two = value((ss - sa + as_ - aa) * 0.5, KIND)
        three = value((ss + sa - as_ - aa) * 0.5, KIND)
        four = value((ss - sa - as_ + aa) * 0.5, KIND)
        tl.store(out_ss_ptr + at, (one + two + three + four) * 0.5, mask=inside)
        tl.store(out_sa_ptr + at, (one - two + three - four) * 0.5, mask=inside)
        tl.store(out_as_ptr + at, (one + two - three - four) * 0.5, mask=inside)
        tl.store(out_aa_ptr + at, (one - two - three + four) * 0.5, mask=inside)


@_tune
@_jit
def linear_gelu_kernel(
    ss_ptr,
    sa_ptr,
    as_ptr,
    aa_ptr,
    weight_s_ptr,
    weight_a_ptr,
    bias_s_ptr,
    bias_a_ptr,
    out_ss_ptr,
    out_sa_ptr,
    out_as_ptr,
    out_aa_ptr,
    rows,
    size,
    out,
    inner,
    PARTS: tl.constexpr,
    KIND: tl.constexpr,
    EVEN: tl.constexpr,
    TF32: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
):
    """A tile of every part. One part is ss, two halves are ss and as; what is not there is None."""
    row, column = _corner(rows, out, ROWS, COLUMNS, GROUP)
    below = _lines(rows - row, inner, ROWS, INNER)
    beside = _lines(out - column, inner, COLUMNS, INNER)
    row_of_x = row * inner
    row_of_weight = column * inner
    ss = tl.full((ROWS, COLUMNS), 0.0, WIDE)
    sa = ss
    as_ = ss
    aa = ss
    # All products of a step together: tensor cores have the others' while they wait for one's operands.
    for k in range(0, inner, INNER):
        weight = _load(weight_s_ptr + row_of_weight, beside, k, inner, INNER, EVEN, WIDE)
        ss = _dot(_load(ss_ptr + row_of_x, below, k, inner, INNER, EVEN, WIDE), weight, ss, TF32)
        if PARTS > 2:
            sa = _dot(_load(sa_ptr + row_of_x, below, k, inner, INNER, EVEN, WIDE), weight, sa, TF32)
        if PARTS > 1:
            weight = _load(weight_a_ptr + row_of_weight, beside, k, inner, INNER, EVEN, WIDE)
            as_ = _dot(_load(as_ptr + row_of_x, below, k, inner, INNER, EVEN, WIDE), weight, as_, TF32)
        if PARTS > 2:
            aa = _dot(_load(aa_ptr + row_of_x, below, k, inner, INNER, EVEN, WIDE), weight, aa, TF32)
    # One side of the columns after the other: the GELU of all at once needs more registers than there are.
    ss, other_ss = _sides(ss)
    sa, other_sa = _sides(sa)
    as_, other_as = _sides(as_)
    aa, other_aa = _sides(aa)
    start = row * out
    biases = (bias_s_ptr, bias_a_ptr)
    outs = (out_ss_ptr, out_sa_ptr, out_as_ptr, out_aa_ptr)
    place = (rows - row, out)
    _finish(ss, sa, as_, aa, *biases, *outs, start, column, *place, PARTS, KIND, WIDE)
    column += COLUMNS // 2
    _finish(other_ss, other_sa, other_as, other_aa, *biases, *outs, start, column, *place, PARTS, KIND, WIDE)


def _run(kernel: Any, x: Tensor, weight: Tensor, pointers: list[Tensor | None], **meta: Any) -> None:
    """Launch `kernel`: a program for all parts of a tile or, without PARTS, one for each half."""
    out, inner = weight.shape
    rows = prod(x.shape[:-1])
    if not rows:
        return

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        return tiles(rows, meta["ROWS"]) * tiles(out, meta["COLUMNS"]), 1 if "PARTS" in meta else 2

    meta["EVEN"] = inner % 64 == 0
    meta["TF32"] = torch.get_float32_matmul_precision() != "highest"
    meta["WIDE"] = wide(x)
    launch(kernel, grid, x, *pointers, rows, 1 << (rows - 1).bit_length(), out, inner, **meta)


def _dense(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if x is None else x.contiguous() for x in tensors]


def _outs(parts: list[Tensor], weight: Tensor) -> list[Tensor]:
    return [x.new_empty(*x.shape[:-1], weight.shape[0]) for x in parts]


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4])


def _gradient(ctx, grads):
    """The library's products, as of two linear layers."""
    s, a, weight_s, weight_a = ctx.saved_tensors
    needs = ctx.needs_input_grad
    g_s, g_a = (grad.reshape(-1, grad.shape[-1]) for grad in grads)
    return (
        (g_s @ weight_s).view_as(s) if needs[0] else None,
        (g_a @ weight_a).view_as(a) if needs[1] else None,
        g_s.T @ s.reshape(-1, s.shape[-1]) if needs[2] else None,
        g_a.T @ a.reshape(-1, a.shape[-1]) if needs[3] else None,
        g_s.sum(0) if needs[4] else None,
    )


@operator(fake=lambda s, a, weight_s, weight_a, bias: _outs([s, a], weight_s), save=_save, gradient=_gradient)
def linear_halves(
    s: Tensor, a: Tensor, weight_s: Tensor, weight_a: Tensor, bias: Tensor | None
) -> list[Tensor]:
    """`flopbench.kernels.linear.linear_parts` of two halves."""
    outs = _outs([s, a], weight_s)
    _run(linear_halves_kernel, s, weight_s, [*_dense(s, a, weight_s, weight_a, bias), *outs])
    return outs


@operator(fake=lambda parts, weights, bias_s, bias_a, kind: _outs(parts, weights[0]))
def linear_gelu(
    parts: list[Tensor], weights: list[Tensor], bias_s: Tensor | None, bias_a: Tensor | None, kind: str
) -> list[Tensor]:
    """`flopbench.kernels.linear.linear_gelu_parts` of 1, 2 or 4 parts, without a gradient: it keeps nothing.

    `bias_s` is the first part's, `bias_a` that of the last of four.
    """
    outs = _outs(parts, weights[0])
    x: list[Tensor | None] = [None] * 4
    y: list[Tensor | None] = [None] * 4
    # Where the kernel has them: the first, the first and the third, or all.
    x[:: 4 // len(parts)] = _dense(*parts)
    y[:: 4 // len(parts)] = outs
    pointers = [*x, *_dense(weights[0], weights[1] if len(weights) > 1 else None, bias_s, bias_a), *y]
    _run(linear_gelu_kernel, parts[0], weights[0], pointers, PARTS=len(parts), KIND=kind)
    return outs
