"""The products of both halves in one launch, and the GELU on mirror pairs in their epilogue.

Not timed on a GPU yet, and not what "auto" runs: the library's products are hard to beat. The arithmetic is
theirs, half of the plain layer's. One launch instead of two fills the GPU better where a half's tiles are
few (small batches); with the GELU, both accumulators of a tile are at hand, and the hidden features are
written once, where product and GELU apart write, read and write them: 2 tensors `[..., C/2]` instead of 6.
"""

# ruff: noqa: ANN001, ANN201, N803

import torch
import triton
import triton.language as tl
from torch import Tensor

from flopbench.kernels.operator import operator
from flopbench.kernels.triton import INTERPRETED, launch, tiles, wide
from flopbench.kernels.triton.mirror_gelu import mirror_pair


def _config(rows: int, columns: int, inner: int, warps: int, stages: int) -> triton.Config:
    meta = {"ROWS": rows, "COLUMNS": columns, "INNER": inner, "GROUP": 8}
    return triton.Config(meta, num_warps=warps, num_stages=stages)


# For Hopper: 64 rows a warpgroup, 64 to 128 bytes of the inner axis a step, two to four steps in flight.
_CONFIGS = [
    _config(128, 128, 64, 8, 3),
    _config(128, 64, 64, 4, 4),
    _config(64, 128, 64, 4, 4),
    _config(64, 64, 64, 4, 4),
    _config(64, 64, 32, 4, 3),
    _config(128, 256, 64, 8, 3),
]
# The interpreter takes the bits of a bf16 for an integer in its products.
_WIDEN = tl.constexpr(INTERPRETED)
# One config is taken untimed: the interpreter has nothing to time.
_KEY = ["rows", "out", "inner", "KIND", "WIDE"]


@triton.jit
def _product(x_ptr, weight_ptr, row, column, rows, out, inner, INNER: tl.constexpr, TF32: tl.constexpr, acc):
    """acc + x · weightᵀ for a tile of rows and columns."""
    for start in range(0, inner, INNER):
        k = start + tl.arange(0, INNER)
        x_inside = (row[:, None] < rows) & (k[None, :] < inner)
        weight_inside = (k[:, None] < inner) & (column[None, :] < out)
        x = tl.load(x_ptr + row[:, None] * inner + k[None, :], mask=x_inside, other=0.0)
        weight = tl.load(weight_ptr + column[None, :] * inner + k[:, None], mask=weight_inside, other=0.0)
        if _WIDEN:
            x = x.to(acc.dtype)
            weight = weight.to(acc.dtype)
        acc = tl.dot(x, weight, acc, input_precision="tf32" if TF32 else "ieee", out_dtype=acc.dtype)
    return acc


@triton.autotune(configs=[_config(16, 16, 16, 4, 1)] if INTERPRETED else _CONFIGS, key=_KEY)
@triton.jit
def linear_halves_kernel(
    s_ptr,
    a_ptr,
    weight_s_ptr,
    weight_a_ptr,
    bias_ptr,
    out_s_ptr,
    out_a_ptr,
    rows,
    out,
    inner,
    KIND: tl.constexpr,
    TF32: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
):
    """A tile of one half, that of the grid's second axis; or, with a KIND of GELU, of both."""
    # GROUP tiles below each other before the next column of tiles: their weights stay in the cache.
    high = (rows + ROWS - 1) // ROWS
    span = GROUP * ((out + COLUMNS - 1) // COLUMNS)
    first = tl.program_id(0) // span * GROUP
    size = tl.minimum(high - first, GROUP)
    within = tl.program_id(0) % span
    row = (first + within % size).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = within // size * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row[:, None] < rows) & (column[None, :] < out)
    at = row[:, None] * out + column[None, :]
    zero = tl.full((ROWS, COLUMNS), 0.0, WIDE)
    x_ptr = s_ptr
    weight_ptr = weight_s_ptr
    out_ptr = out_s_ptr
    if tl.program_id(1) == 1:
        x_ptr = a_ptr
        weight_ptr = weight_a_ptr
        out_ptr = out_a_ptr
    s = _product(x_ptr, weight_ptr, row, column, rows, out, inner, INNER, TF32, zero)
    if bias_ptr is not None:
        symmetric = (column < out) & (tl.program_id(1) == 0)
        s += tl.load(bias_ptr + column, mask=symmetric, other=0.0).to(WIDE)[None, :]
    if KIND == "none":
        tl.store(out_ptr + at, s, mask=inside)
    else:
        a = _product(a_ptr, weight_a_ptr, row, column, rows, out, inner, INNER, TF32, zero)
        tl.store(out_s_ptr + at, mirror_pair(s, a, 1.0, KIND), mask=inside)
        tl.store(out_a_ptr + at, mirror_pair(s, a, -1.0, KIND), mask=inside)


def _outs(s, a, weight_s, *_):
    shape = (*s.shape[:-1], weight_s.shape[0])
    return [s.new_empty(shape) for _ in range(2)]


def _run(
    s: Tensor, a: Tensor, weight_s: Tensor, weight_a: Tensor, bias: Tensor | None, kind: str
) -> list[Tensor]:
    outs = _outs(s, a, weight_s)
    out, inner = weight_s.shape
    rows = outs[0].numel() // out
    if rows:
        dense = [None if x is None else x.contiguous() for x in (s, a, weight_s, weight_a, bias)]

        def grid(meta: dict[str, int]) -> tuple[int, int]:
            return tiles(rows, meta["ROWS"]) * tiles(out, meta["COLUMNS"]), 2 if kind == "none" else 1

        tf32 = torch.get_float32_matmul_precision() != "highest"
        meta = {"KIND": kind, "TF32": tf32, "WIDE": wide(s)}
        launch(linear_halves_kernel, grid, s, *dense, *outs, rows, out, inner, **meta)
    return outs


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


@operator(fake=_outs, save=_save, gradient=_gradient)
def linear_halves(
    s: Tensor, a: Tensor, weight_s: Tensor, weight_a: Tensor, bias: Tensor | None
) -> list[Tensor]:
    """`flopbench.kernels.linear.linear_halves`."""
    return _run(s, a, weight_s, weight_a, bias, "none")


@operator(fake=_outs)
def linear_gelu_halves(
    s: Tensor, a: Tensor, weight_s: Tensor, weight_a: Tensor, bias: Tensor | None, kind: str
) -> list[Tensor]:
    """`flopbench.kernels.linear.linear_gelu_halves`, without a gradient: it keeps nothing for one."""
    return _run(s, a, weight_s, weight_a, bias, kind)
