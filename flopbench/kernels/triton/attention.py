"""Flash attention that reads and writes the parts of a feature themselves, [qkv] or [s, a].

Timed forward (reports/gpu-h200.md): of halves much faster than the library's with the parts put side by side,
of one part mostly slower than the library's; with gradients not timed. What follows is predicted.

A head is the concatenation of the same head of all parts, so scores are (q_s·k_s + q_a·k_a)/√d with
d = C/heads. The kernels are those of FlashAttention-2, and the parts are a matter of addresses alone: a
channel of a head lies in s or in a. A tile of a head is as wide as that of the plain layer, and so are its
products; nothing is packed before or unpacked after.

Bytes. Forward 4·B·N·C elements are read and written: q, k, v and the result, in one part or in two. Packing
of heads for the library's attention, and unpacking, move 8·B·N·C more, twice as many. In bf16 the 4·B·N²·C
FLOPs are N/2 a byte, for N = 197 a third of what an H100 does while a byte comes from memory: so few blocks
of queries, each of which reads the keys of its head from the L2 cache again, matter more than padding.

FLOPs. Backward is one kernel for the gradient of q, which also sums grad · result, and one for those of k
and v, without atomics, so that results are the same in each run. Both compute scores and the gradients of
the probabilities: 7 products, where 5 are counted, the least that a fused kernel takes.

Blocks. 128 rows in 8 warps are two groups of 64 rows for Hopper's products. With 64 columns a step, in bf16
and heads of 64 channels, two programs of the forward kernel find registers on a multiprocessor, one of that
for k and v. Where half of the last 128 rows would be padding, as of 257 tokens, blocks have 64 rows in 4
warps. The last step has as few columns as tokens remain, 5 of 197 and 1 of 257 in 16. Heads whose channels
are no power of two are the largest power of two in them and a block for the rest: 80 channels, of ViT-H,
are 64 and 16.
"""

# ruff: noqa: ANN001, ANN201, N803
# Triton declares its constants by a type that no number has, and its unrolled range as what never returns.
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false, reportGeneralTypeIssues=false

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from flopbench.kernels.operator import operator
from flopbench.kernels.triton import INTERPRETED, launch, tiles, total, wide

# The interpreter takes the bits of a bf16 for an integer in its products.
_WIDEN = tl.constexpr(INTERPRETED)
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _larger(x, y):
    return tl.maximum(x, y)


@triton.jit
def _dot(x, y, acc, TF32: tl.constexpr):
    """acc + x · y, with x rounded to y's dtype."""
    x = x.to(y.dtype)
    if _WIDEN:
        x = x.to(acc.dtype)
        y = y.to(acc.dtype)
    return tl.dot(x, y, acc, input_precision="tf32" if TF32 else "ieee", out_dtype=acc.dtype)


@triton.jit
def _at(s, a, offset, token, tokens, stride, PART: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """Where COUNT channels of a head lie, from FIRST on, of some tokens; and which of them there are."""
    channel = FIRST + tl.arange(0, COUNT)[None, :]
    at = s + offset + channel
    CHANNELS: tl.constexpr = PART if a is None else 2 * PART
    if a is not None:
        at = tl.where(channel < PART, at, a + offset + (channel - PART))
    inside = token[:, None] < tokens
    if FIRST + COUNT > CHANNELS:
        inside &= channel < CHANNELS
    return at + token[:, None] * stride, inside


@triton.jit
def _load(s, a, offset, token, tokens, stride, PART: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """What lies there, zero where there is nothing."""
    at, inside = _at(s, a, offset, token, tokens, stride, PART, FIRST, COUNT)
    return tl.load(at, mask=inside, other=0.0)


@triton.jit
def _store(
    x, s, a, offset, token, tokens, stride, PART: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr
):
    at, inside = _at(s, a, offset, token, tokens, stride, PART, FIRST, COUNT)
    tl.store(at, x, mask=inside)


@triton.jit
def _place(tokens, heads, PART: tl.constexpr, ROWS: tl.constexpr):
    """Of a program: its head among all images', its tokens, and where the head starts in qkv and result."""
    blocks = (tokens + ROWS - 1) // ROWS
    head = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    of_image = head // heads * tokens * heads * PART
    channel = head % heads * PART
    return head, row, 3 * of_image + channel, of_image + channel


@triton.jit
def attention_kernel(
    s_ptr,
    a_ptr,
    out_s_ptr,
    out_a_ptr,
    log_ptr,
    tokens,
    heads,
    SCALE: tl.constexpr,
    PART: tl.constexpr,
    MAIN: tl.constexpr,
    TAIL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REST: tl.constexpr,
    TF32: tl.constexpr,
    WIDE: tl.constexpr,
):
    """ROWS queries of a head, against COLUMNS keys at a time, at last against the REST of them."""
    head, row, offset, out_offset = _place(tokens, heads, PART, ROWS)
    width = heads * PART
    stride = 3 * width
    q = _load(s_ptr, a_ptr, offset, row, tokens, stride, PART, 0, MAIN)
    acc = tl.full((ROWS, MAIN), 0.0, WIDE)
    if TAIL > 0:
        q_tail = _load(s_ptr, a_ptr, offset, row, tokens, stride, PART, MAIN, TAIL)
        tail = tl.full((ROWS, TAIL), 0.0, WIDE)
    top = tl.full((ROWS, 1), float("-inf"), WIDE)
    norm = tl.full((ROWS, 1), 0.0, WIDE)
    whole = tokens // COLUMNS * COLUMNS
    for LAST in tl.static_range(2):
        for start in range(whole if LAST else 0, tokens if LAST else whole, REST if LAST else COLUMNS):
            column = start + tl.arange(0, REST if LAST else COLUMNS)
            k = _load(s_ptr, a_ptr, offset + width, column, tokens, stride, PART, 0, MAIN)
            scores = tl.full((ROWS, REST if LAST else COLUMNS), 0.0, WIDE)
            scores = _dot(q, tl.trans(k), scores, TF32)
            if TAIL > 0:
                k = _load(s_ptr, a_ptr, offset + width, column, tokens, stride, PART, MAIN, TAIL)
                scores = _dot(q_tail, tl.trans(k), scores, TF32)
            if LAST:
                scores = tl.where(column[None, :] < tokens, scores, float("-inf"))
            higher = tl.maximum(top, tl.reduce(scores, 1, _larger, keep_dims=True) * (SCALE * _LOG2_E))
            p = tl.exp2(scores * (SCALE * _LOG2_E) - higher)
            shrink = tl.exp2(top - higher)
            top = higher
            norm = norm * shrink + total(p, 1)
            v = _load(s_ptr, a_ptr, offset + 2 * width, column, tokens, stride, PART, 0, MAIN)
            acc = _dot(p, v, acc * shrink, TF32)
            if TAIL > 0:
                v = _load(s_ptr, a_ptr, offset + 2 * width, column, tokens, stride, PART, MAIN, TAIL)
                tail = _dot(p, v, tail * shrink, TF32)
    _store(acc / norm, out_s_ptr, out_a_ptr, out_offset, row, tokens, width, PART, 0, MAIN)
    if TAIL > 0:
        _store(tail / norm, out_s_ptr, out_a_ptr, out_offset, row, tokens, width, PART, MAIN, TAIL)
    tl.store(log_ptr + head * tokens + row[:, None], top + tl.log2(norm), mask=row[:, None] < tokens)


@triton.jit
def attention_query_gradient_kernel(
    s_ptr,
    a_ptr,
    mixed_s_ptr,
    mixed_a_ptr,
    grad_s_ptr,
    grad_a_ptr,
    log_ptr,
    delta_ptr,
    out_s_ptr,
    out_a_ptr,
    tokens,
    heads,
    SCALE: tl.constexpr,
    PART: tl.constexpr,
    MAIN: tl.constexpr,
    TAIL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REST: tl.constexpr,
    TF32: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradient of ROWS queries of a head, and for `attention_key_gradient_kernel` Σ grad · mixed."""
    head, row, offset, out_offset = _place(tokens, heads, PART, ROWS)
    width = heads * PART
    stride = 3 * width
    q = _load(s_ptr, a_ptr, offset, row, tokens, stride, PART, 0, MAIN)
    grad = _load(grad_s_ptr, grad_a_ptr, out_offset, row, tokens, width, PART, 0, MAIN)
    mixed = _load(mixed_s_ptr, mixed_a_ptr, out_offset, row, tokens, width, PART, 0, MAIN)
    delta = total(grad.to(WIDE) * mixed.to(WIDE), 1)
    acc = tl.full((ROWS, MAIN), 0.0, WIDE)
    if TAIL > 0:
        q_tail = _load(s_ptr, a_ptr, offset, row, tokens, stride, PART, MAIN, TAIL)
        grad_tail = _load(grad_s_ptr, grad_a_ptr, out_offset, row, tokens, width, PART, MAIN, TAIL)
        mixed = _load(mixed_s_ptr, mixed_a_ptr, out_offset, row, tokens, width, PART, MAIN, TAIL)
        delta += total(grad_tail.to(WIDE) * mixed.to(WIDE), 1)
        tail = tl.full((ROWS, TAIL), 0.0, WIDE)
    log = tl.load(log_ptr + head * tokens + row[:, None], mask=row[:, None] < tokens, other=0.0)
    tl.store(delta_ptr + head * tokens + row[:, None], delta, mask=row[:, None] < tokens)
    whole = tokens // COLUMNS * COLUMNS
    for LAST in tl.static_range(2):
        for start in range(whole if LAST else 0, tokens if LAST else whole, REST if LAST else COLUMNS):
            column = start + tl.arange(0, REST if LAST else COLUMNS)
            k = _load(s_ptr, a_ptr, offset + width, column, tokens, stride, PART, 0, MAIN)
            v = _load(s_ptr, a_ptr, offset + 2 * width, column, tokens, stride, PART, 0, MAIN)
            zero = tl.full((ROWS, REST if LAST else COLUMNS), 0.0, WIDE)
            scores = _dot(q, tl.trans(k), zero, TF32)
            slope = _dot(grad, tl.trans(v), zero, TF32)
            if TAIL > 0:
                k_tail = _load(s_ptr, a_ptr, offset + width, column, tokens, stride, PART, MAIN, TAIL)
                v_tail = _load(s_ptr, a_ptr, offset + 2 * width, column, tokens, stride, PART, MAIN, TAIL)
                scores = _dot(q_tail, tl.trans(k_tail), scores, TF32)
                slope = _dot(grad_tail, tl.trans(v_tail), slope, TF32)
            if LAST:
                scores = tl.where(column[None, :] < tokens, scores, float("-inf"))
            p = tl.exp2(scores * (SCALE * _LOG2_E) - log)
            slope = p * (slope - delta)
            acc = _dot(slope, k, acc, TF32)
            if TAIL > 0:
                tail = _dot(slope, k_tail, tail, TF32)
    _store(acc * SCALE, out_s_ptr, out_a_ptr, offset, row, tokens, stride, PART, 0, MAIN)
    if TAIL > 0:
        _store(tail * SCALE, out_s_ptr, out_a_ptr, offset, row, tokens, stride, PART, MAIN, TAIL)


@triton.jit
def attention_key_gradient_kernel(
    s_ptr,
    a_ptr,
    grad_s_ptr,
    grad_a_ptr,
    log_ptr,
    delta_ptr,
    out_s_ptr,
    out_a_ptr,
    tokens,
    heads,
    SCALE: tl.constexpr,
    PART: tl.constexpr,
    MAIN: tl.constexpr,
    TAIL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REST: tl.constexpr,
    TF32: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradients of ROWS keys and values of a head, from COLUMNS queries at a time."""
    head, row, offset, out_offset = _place(tokens, heads, PART, ROWS)
    width = heads * PART
    stride = 3 * width
    k = _load(s_ptr, a_ptr, offset + width, row, tokens, stride, PART, 0, MAIN)
    v = _load(s_ptr, a_ptr, offset + 2 * width, row, tokens, stride, PART, 0, MAIN)
    acc_k = tl.full((ROWS, MAIN), 0.0, WIDE)
    acc_v = tl.full((ROWS, MAIN), 0.0, WIDE)
    if TAIL > 0:
        k_tail = _load(s_ptr, a_ptr, offset + width, row, tokens, stride, PART, MAIN, TAIL)
        v_tail = _load(s_ptr, a_ptr, offset + 2 * width, row, tokens, stride, PART, MAIN, TAIL)
        tail_k = tl.full((ROWS, TAIL), 0.0, WIDE)
        tail_v = tl.full((ROWS, TAIL), 0.0, WIDE)
    whole = tokens // COLUMNS * COLUMNS
    for LAST in tl.static_range(2):
        for start in range(whole if LAST else 0, tokens if LAST else whole, REST if LAST else COLUMNS):
            column = start + tl.arange(0, REST if LAST else COLUMNS)
            at = head * tokens + column[None, :]
            # No exponential is left of a query that there is not.
            log = tl.load(log_ptr + at, mask=column[None, :] < tokens, other=float("inf"))
            delta = tl.load(delta_ptr + at, mask=column[None, :] < tokens, other=0.0)
            q = _load(s_ptr, a_ptr, offset, column, tokens, stride, PART, 0, MAIN)
            grad = _load(grad_s_ptr, grad_a_ptr, out_offset, column, tokens, width, PART, 0, MAIN)
            zero = tl.full((ROWS, REST if LAST else COLUMNS), 0.0, WIDE)
            scores = _dot(k, tl.trans(q), zero, TF32)
            slope = _dot(v, tl.trans(grad), zero, TF32)
            if TAIL > 0:
                q_tail = _load(s_ptr, a_ptr, offset, column, tokens, stride, PART, MAIN, TAIL)
                grad_tail = _load(grad_s_ptr, grad_a_ptr, out_offset, column, tokens, width, PART, MAIN, TAIL)
                scores = _dot(k_tail, tl.trans(q_tail), scores, TF32)
                slope = _dot(v_tail, tl.trans(grad_tail), slope, TF32)
            p = tl.exp2(scores * (SCALE * _LOG2_E) - log)
            slope = p * (slope - delta)
            acc_v = _dot(p, grad, acc_v, TF32)
            acc_k = _dot(slope, q, acc_k, TF32)
            if TAIL > 0:
                tail_v = _dot(p, grad_tail, tail_v, TF32)
                tail_k = _dot(slope, q_tail, tail_k, TF32)
    _store(acc_k * SCALE, out_s_ptr, out_a_ptr, offset + width, row, tokens, stride, PART, 0, MAIN)
    _store(acc_v, out_s_ptr, out_a_ptr, offset + 2 * width, row, tokens, stride, PART, 0, MAIN)
    if TAIL > 0:
        _store(tail_k * SCALE, out_s_ptr, out_a_ptr, offset + width, row, tokens, stride, PART, MAIN, TAIL)
        _store(tail_v, out_s_ptr, out_a_ptr, offset + 2 * width, row, tokens, stride, PART, MAIN, TAIL)


# Rows, columns and warps by bytes of an element, so that nothing spills; fp64 is for checks.
_BLOCKS = {2: (128, 64, 8), 4: (64, 32, 8), 8: (32, 16, 4)}


@cache
def _meta(kernel: Any, size: int, tokens: int, part: int, parts: int) -> dict[str, int | float]:
    """What a kernel is compiled for, and its warps, given the bytes of an element and the shape of a head."""
    channels = parts * part
    main = max(16, 1 << (channels.bit_length() - 1))
    rest = max(0, channels - main)
    rows, columns, warps = (16, 16, 4) if INTERPRETED else _BLOCKS[size]
    stages = 2
    if rows == 128 and 0 < tokens % 128 <= 64:
        # The half of the last block would be padding.
        rows, warps = 64, 4
    elif size > 2 and channels > 64:
        rows, stages = 128 // size, 1
    if channels > (64 if kernel is attention_key_gradient_kernel else 96):
        columns = min(columns, 32)
    return {
        "SCALE": channels**-0.5,
        "PART": part,
        "MAIN": main,
        "TAIL": max(16, triton.next_power_of_2(rest)) if rest else 0,
        "ROWS": rows,
        "COLUMNS": columns,
        "REST": max(16, triton.next_power_of_2(tokens % columns)),
        "num_warps": warps,
        "num_stages": stages,
    }


def _run(kernel: Any, tensors: list[Tensor | None], qkv: Tensor, parts: int, heads: int) -> None:
    """A program for each block of rows of each head."""
    batch, tokens, width = qkv.shape
    if not qkv.numel():
        return
    meta = _meta(kernel, qkv.element_size(), tokens, width // (3 * heads), parts)
    grid = (tiles(tokens, int(meta["ROWS"])) * batch * heads,)
    tf32 = torch.get_float32_matmul_precision() != "highest"
    launch(kernel, grid, qkv, *tensors, tokens, heads, TF32=tf32, WIDE=wide(qkv), **meta)


def _pointers(*lists: list[Tensor]) -> list[Tensor | None]:
    """Of one part or two of each; None in place of a second."""
    return [x for parts in lists for x in ([one.contiguous() for one in parts] + [None])[:2]]


def _outs(qkv, heads):
    batch, tokens, width = qkv[0].shape
    dtype = torch.float64 if qkv[0].dtype == torch.float64 else torch.float32
    mixed = [x.new_empty(batch, tokens, width // 3) for x in qkv]
    return [*mixed, qkv[0].new_empty(batch, heads, tokens, dtype=dtype)]


def _like(grads, qkv, mixed, log, heads):
    return [x.new_empty(x.shape) for x in qkv]


@operator(fake=_like)
def flash_attention_parts_backward(
    grads: list[Tensor], qkv: list[Tensor], mixed: list[Tensor], log: Tensor, heads: int
) -> list[Tensor]:
    """Gradients of the parts of qkv, from those of what was mixed."""
    outs = _like(grads, qkv, mixed, log, heads)
    delta = torch.empty_like(log)
    tensors = [*_pointers(qkv, mixed, grads), log, delta, *_pointers(outs)]
    _run(attention_query_gradient_kernel, tensors, qkv[0], len(qkv), heads)
    tensors = [*_pointers(qkv, grads), log, delta, *_pointers(outs)]
    _run(attention_key_gradient_kernel, tensors, qkv[0], len(qkv), heads)
    return outs


def _save(ctx, inputs, output):
    qkv, ctx.heads = inputs
    # Nobody takes the gradient of the logarithms, for which zeros would be filled in.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*qkv, *output)


def _gradient(ctx, grads) -> tuple[list[Tensor], None]:
    *saved, log = ctx.saved_tensors
    qkv, mixed = saved[: len(saved) // 2], saved[len(saved) // 2 :]
    known = [torch.zeros_like(x) if g is None else g for x, g in zip(mixed, grads[:-1], strict=True)]
    return flash_attention_parts_backward(known, qkv, mixed, log, ctx.heads), None


@operator(fake=_outs, save=_save, gradient=_gradient)
def flash_attention_parts(qkv: list[Tensor], heads: int) -> list[Tensor]:
    """`flopbench.kernels.attention.attention_parts` of one part, or of two of one shape.

    Args:
        qkv: `[B, N, 3·C_p]` each, channels ordered (q, k, v) × head × C_p/heads.
        heads: how many.

    Returns:
        What is mixed, `[B, N, C_p]` for each part, and the binary logarithm of the sum of each row of
        exponentials, `[B, heads, N]`, which the gradient needs.
    """
    outs = _outs(qkv, heads)
    _run(attention_kernel, [*_pointers(qkv, outs[:-1]), outs[-1]], qkv[0], len(qkv), heads)
    return outs
