"""Products of all parts of a feature in one launch, and the GELU in their epilogue.

Timed forward (reports/gpu-h200.md): slower than the library's products at most sizes, and with the GELU
mostly no faster than these and inductor's. With gradients not timed. The arithmetic is the library's. What
was predicted of an H100: the products of all parts in one launch have one last, partly filled wave of tiles
where a launch for each part has as many, of 132 tiles each; that is what small batches lose.
Parts share no features, and weights at most with the next, so one part's tiles all come before the next
one's, the widest first, and the cache holds one weight at a time. With the GELU the accumulators of all
points of a tile are at hand, and the hidden features are written once, where product and GELU apart write,
read and write them: a third of the bytes, of however many parts.
"""

# ruff: noqa: ANN001, ANN201, N803
# Triton declares its constants by a type that has no length, and its unrolled range as what never returns.
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from flopbench.kernels.operator import operator
from flopbench.kernels.triton import INTERPRETED, Slices, launch, tiles, wide
from flopbench.kernels.triton.gelu import activated

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
# The accumulators of 8 points leave the registers no more than this.
_MANY = _config(64, 64, 32, 8, 3)
# Wide types are for checks, not for speed; and some GPU has no room for any of those above.
_SMALL = _config(64, 64, 16, 8, 2)


def _fitting(configs: list[triton.Config], given: dict[str, Any], **meta: Any) -> list[triton.Config]:
    """Those that spill no registers and find room in shared memory with so many points' accumulators."""
    x = given["x"][0]
    if x.element_size() > 2:
        return [_SMALL]
    shared = _SHARED
    if x.is_cuda:
        shared = torch.cuda.get_device_properties(x.device).shared_memory_per_block_optin
    # Without a GELU a program has one part.
    slices, of = meta.get("SLICES", (1,)), meta.get("OF", (0,))
    fitting = [config for config in (*configs, _MANY) if _fits(config, slices, of, shared)]
    several = [config for config in fitting if config is not _MANY]
    return (several if tuned else several[:1]) or fitting or [_SMALL]


def _fits(config: triton.Config, slices: Sequence[int], of: Sequence[int], shared: int) -> bool:
    rows, columns, inner = (config.kwargs[name] for name in ("ROWS", "COLUMNS", "INNER"))
    accumulators = sum(slices) * rows * columns / (32 * config.num_warps)
    lines = 0
    for count in set(slices):
        like = [weight for weight, slices_ in zip(of, slices, strict=True) if slices_ == count]
        lines = max(lines, len(like) * rows + len(set(like)) * count * columns)
    return accumulators <= 128 and config.num_stages * 2 * inner * lines <= shared


# SIZE is all that a batch changes: another one as large runs what was found best. Of tensors in tuples the
# tuner sees no dtype, so that it is named. The interpreter has nothing to time: one config is taken untimed.
_tune = triton.autotune(
    configs=[_config(16, 16, 16, 4, 1)] if INTERPRETED else _CONFIGS,
    key=["size", "out", "inner", "SLICES", "KIND", "TYPE"],
    prune_configs_by={"early_config_prune": _fitting},
)
_jit = triton.jit(do_not_specialize=["rows", "size"])

# The interpreter takes the bits of a bf16 for an integer in its products.
_WIDEN = tl.constexpr(INTERPRETED)


@triton.jit
def _corner(tile, rows, out, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr):
    """The first row and the first column of a tile, in 64 bits.

    GROUP tiles below each other come before the next column of tiles: their weights stay in the cache.
    """
    high = (rows + ROWS - 1) // ROWS
    span = GROUP * ((out + COLUMNS - 1) // COLUMNS)
    first = tile // span * GROUP
    size = tl.minimum(high - first, GROUP)
    within = tile % span
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
def linear_parts_kernel(
    x,
    weights,
    biases,
    outs,
    inner,
    out,
    rows,
    size,
    BIASED: tl.constexpr,
    EVEN: tl.constexpr,
    TF32: tl.constexpr,
    TYPE: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
):
    """A tile of one part; the tiles of all parts come one part after the other.

    All is by part; where one is not BIASED another's bias stands for its own, if there is any.
    """
    tile = tl.program_id(0)
    x_ptr = x[0]
    weight_ptr = weights[0]
    out_ptr = outs[0]
    length = inner[0]
    width = out[0]
    biased = BIASED[0]
    if len(biases) > 0:
        bias_ptr = biases[0]
    for p in tl.static_range(1, len(x)):
        past = ((rows + ROWS - 1) // ROWS) * ((width + COLUMNS - 1) // COLUMNS)
        if tile >= past:
            tile -= past
            x_ptr = x[p]
            weight_ptr = weights[p]
            out_ptr = outs[p]
            length = inner[p]
            width = out[p]
            if len(biases) > 0:
                bias_ptr = biases[p]
                biased = BIASED[p]
    row, column = _corner(tile, rows, width, ROWS, COLUMNS, GROUP)
    x_ptr += row * length
    weight_ptr += column * length
    below = _lines(rows - row, length, ROWS, INNER)
    beside = _lines(width - column, length, COLUMNS, INNER)
    acc = tl.full((ROWS, COLUMNS), 0.0, WIDE)
    for k in range(0, length, INNER):
        one = _load(x_ptr, below, k, length, INNER, EVEN, WIDE)
        acc = _dot(one, _load(weight_ptr, beside, k, length, INNER, EVEN, WIDE), acc, TF32)
    inside = tl.arange(0, COLUMNS) < width - column
    if len(biases) > 0:
        bias = tl.load(bias_ptr + column + tl.arange(0, COLUMNS), mask=inside & biased, other=0.0)
        acc += bias.to(WIDE)[None, :]
    at = tl.arange(0, ROWS)[:, None] * width + tl.arange(0, COLUMNS)[None, :]
    inside = (tl.arange(0, ROWS) < rows - row)[:, None] & inside[None, :]
    tl.store(out_ptr + row * width + column + at, acc.to(TYPE), mask=inside)


@triton.jit
def _side(x, RIGHT: tl.constexpr):
    """The left half of the columns, or the right one."""
    y = ()
    for k in tl.static_range(len(x)):
        left, right = x[k].reshape(x[k].shape[0], 2, x[k].shape[1] // 2).permute(0, 2, 1).split()
        y += (right if RIGHT else left,)
    return y


@_tune
@_jit
def linear_gelu_kernel(
    x,
    weights,
    biases,
    outs,
    inner,
    out,
    rows,
    size,
    OF: tl.constexpr,
    SLICES: tl.constexpr,
    MOST: tl.constexpr,
    ORDER: tl.constexpr,
    SIGNS: tl.constexpr,
    SLICE: tl.constexpr,
    COUNT: tl.constexpr,
    KIND: tl.constexpr,
    EVEN: tl.constexpr,
    TF32: tl.constexpr,
    TYPE: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
):
    """A tile of every point of the transform.

    Features are by part, of so many SLICES of `inner` channels, MOST at the most; the weight of each is OF
    these. Results and biases, None where there is none, are by point: of the part's COUNT slices of `out`
    channels it is SLICE.
    """
    row, column = _corner(tl.program_id(0), rows, out, ROWS, COLUMNS, GROUP)
    acc = (tl.full((ROWS, COLUMNS), 0.0, WIDE),) * len(ORDER)
    for count in tl.static_range(1, MOST + 1):
        length = count * inner
        below = _lines(rows - row, length, ROWS, INNER)
        beside = _lines(out - column, length, COLUMNS, INNER)
        # All products of a step together: tensor cores have the others' while they wait for one's operands.
        for k in range(0, length, INNER):
            sums = ()
            for p in tl.static_range(len(x)):
                if SLICES[p] == count:
                    one = _load(x[p] + row * length, below, k, length, INNER, EVEN, WIDE)
                for j in tl.static_range(MOST):
                    if j < SLICES[p] and SLICES[p] == count:
                        weight_ptr = weights[OF[p]] + (j * out + column) * length
                        weight = _load(weight_ptr, beside, k, length, INNER, EVEN, WIDE)
                        sums += (_dot(one, weight, acc[len(sums)], TF32),)
                    elif j < SLICES[p]:
                        sums += (acc[len(sums)],)
            acc = sums
    # One side of the columns after the other: the GELU of all at once needs more registers than there are.
    for side in tl.static_range(2):
        half = _side(acc, side)
        first = column + side * (COLUMNS // 2)
        beside = tl.arange(0, COLUMNS // 2)
        inside = beside < out - first
        points = ()
        for k in tl.static_range(len(ORDER)):
            point = half[ORDER[k]]
            if biases[k] is not None:
                at = SLICE[k] * out + first + beside
                point += tl.load(biases[k] + at, mask=inside, other=0.0).to(WIDE)[None, :]
            points += (point,)
        points = activated(points, SIGNS, KIND)
        below = tl.arange(0, ROWS)[:, None]
        for k in tl.static_range(len(ORDER)):
            at = ((row + below) * COUNT[k] + SLICE[k]) * out + first + beside[None, :]
            tl.store(outs[k] + at, points[k].to(TYPE), mask=(below < rows - row) & inside[None, :])


def _run(kernel: Any, x: Sequence[Tensor], *pointers: Any, out: Any, inner: Any, **meta: Any) -> None:
    """Launch `kernel` on the features x, from `inner` to `out` channels of each part or of each slice."""
    rows = prod(x[0].shape[:-1])
    if not rows:
        return
    widths, lengths = (sizes if isinstance(sizes, tuple) else (sizes,) for sizes in (out, inner))

    def grid(config: dict[str, int]) -> tuple[int]:
        return (tiles(rows, config["ROWS"]) * sum(tiles(width, config["COLUMNS"]) for width in widths),)

    meta["EVEN"] = all(length % 64 == 0 for length in lengths)
    meta["TF32"] = torch.get_float32_matmul_precision() != "highest"
    meta["TYPE"] = getattr(tl, str(x[0].dtype).removeprefix("torch."))
    size = 1 << (rows - 1).bit_length()
    launch(kernel, grid, x[0], tuple(x), *pointers, inner, out, rows, size, WIDE=wide(x[0]), **meta)


def _dense(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [x.contiguous() for x in tensors]


def _outs(x, weight, of, *_):
    return [one.new_empty(*one.shape[:-1], weight[i].shape[0]) for one, i in zip(x, of, strict=True)]


def _save(ctx, inputs, output):
    x, weight, ctx.of, _, ctx.biased = inputs
    ctx.save_for_backward(*x, *weight)


def _gradient(ctx, grads):
    """The library's products, as of a linear layer for each part."""
    of = ctx.of
    x, weight = ctx.saved_tensors[: len(of)], ctx.saved_tensors[len(of) :]
    of_x, of_weight, _, of_bias, _ = ctx.needs_input_grad
    grads = [grad.reshape(-1, grad.shape[-1]) for grad in grads]
    for_weight: list[Tensor | None] = [None] * len(weight)
    for p, i in enumerate(of):
        if of_weight[i]:
            known, rows = for_weight[i], x[p].reshape(-1, x[p].shape[-1])
            for_weight[i] = grads[p].T @ rows if known is None else known.addmm(grads[p].T, rows)
    return (
        [(grads[p] @ weight[i]).view_as(x[p]) if of_x[p] else None for p, i in enumerate(of)],
        for_weight,
        None,
        [grads[p].sum(0) if needed else None for p, needed in zip(ctx.biased, of_bias, strict=True)],
        None if ctx.biased else [],
    )


@operator(fake=_outs, save=_save, gradient=_gradient)
def tiled_linear_parts(
    x: list[Tensor], weight: list[Tensor], of: list[int], bias: list[Tensor], biased: list[int]
) -> list[Tensor]:
    """`flopbench.kernels.linear.linear_parts`.

    Args:
        x: the parts `[..., in_p]`.
        weight: the distinct ones `[out_p, in_p]`.
        of: the weight of each part.
        bias: of some parts `[out_p]`.
        biased: these parts.
    """
    outs = _outs(x, weight, of)
    # The widest first: what is left to the last, partly filled wave of tiles should be short.
    order = sorted(range(len(x)), key=lambda p: -x[p].shape[-1])
    weights, biases = _dense(weight), dict(zip(biased, _dense(bias), strict=True))
    out, inner = zip(*(weight[of[p]].shape for p in order), strict=True)
    _run(
        linear_parts_kernel,
        _dense([x[p] for p in order]),
        tuple(weights[of[p]] for p in order),
        tuple(biases.get(p, biases[biased[0]]) for p in order) if biases else (),
        tuple(outs[p] for p in order),
        out=out,
        inner=inner,
        BIASED=tuple(p in biases for p in order),
    )
    return outs


@operator(fake=_outs)
def linear_gelu(
    x: list[Tensor],
    weight: list[Tensor],
    of: list[int],
    bias: list[Tensor],
    biased: list[int],
    slices: list[int],
    order: list[int],
    signs: list[int],
    kind: str,
) -> list[Tensor]:
    """`flopbench.kernels.linear.linear_gelu_parts`, without a gradient: it keeps nothing.

    The arguments of `tiled_linear_parts` and of `flopbench.kernels.triton.gelu.gelu`. The weight of a part of
    d slices has d times as many channels, both ways, as that of one of a single slice.
    """
    outs = _outs(x, weight, of)
    at = Slices.of_parts(slices, order)
    biases = dict(zip(biased, _dense(bias), strict=True))
    out, inner = (size // slices[0] for size in weight[of[0]].shape)
    _run(
        linear_gelu_kernel,
        _dense(x),
        tuple(_dense(weight)),
        tuple(biases.get(p) for p in at.part),
        at.of_each(outs),
        out=out,
        inner=inner,
        OF=tuple(of),
        SLICES=tuple(slices),
        MOST=max(slices),
        ORDER=tuple(order),
        SIGNS=tuple(signs),
        SLICE=at.at,
        COUNT=at.of,
        KIND=kind,
    )
    return outs
