"""Query, key and value from both halves in one kernel, and both halves from attention's output in one.

Not timed on a GPU yet. Each element is read once and written once. Forward the eager operations move as
much, packing in one kernel and unpacking in two; their gradients put the heads' gradients side by side
first and copy each half out of that, three times as many bytes. Each direction is the other's gradient.
"""

# ruff: noqa: ANN001, ANN201, N803

from functools import cache

import triton
import triton.language as tl
from torch import Tensor

from flopbench.kernels.operator import operator
from flopbench.kernels.triton import INTERPRETED, launch, tiles

_TILE = 64 if INTERPRETED else 2048


@triton.jit
def pack_heads_kernel(
    s_ptr,
    a_ptr,
    first_ptr,
    second_ptr,
    third_ptr,
    rows,
    tokens,
    heads,
    stride_batch,
    stride_head,
    stride_token,
    HALF: tl.constexpr,
    PACK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """ROWS tokens of one head of one part: s and a to [s, a] along the head's channels, or back."""
    which = tl.program_id(1)
    part = which // heads
    head = which % heads
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < HALF)
    half = row * tl.num_programs(1) * HALF + which * HALF + column
    full = row // tokens * stride_batch + head * stride_head + row % tokens * stride_token + column
    x_ptr = first_ptr
    if part == 1:
        x_ptr = second_ptr
    if part == 2:
        x_ptr = third_ptr
    if PACK:
        tl.store(x_ptr + full, tl.load(s_ptr + half, mask=inside), mask=inside)
        tl.store(x_ptr + full + HALF, tl.load(a_ptr + half, mask=inside), mask=inside)
    else:
        tl.store(s_ptr + half, tl.load(x_ptr + full, mask=inside), mask=inside)
        tl.store(a_ptr + half, tl.load(x_ptr + full + HALF, mask=inside), mask=inside)


_block = cache(triton.next_power_of_2)


def _move(s: Tensor, a: Tensor, parts: list[Tensor], *, pack: bool) -> None:
    """Between dense halves `[B, N, parts · C/2]` and 1 to 3 parts `[B, heads, N, d]` of equal strides."""
    batch, heads, tokens, width = parts[0].shape
    if not s.numel():
        return
    block = _block(width // 2)
    rows = max(1, _TILE // block)
    grid = (tiles(batch * tokens, rows), len(parts) * heads)
    launch(
        pack_heads_kernel,
        grid,
        s,
        s,
        a,
        *(parts * 3)[:3],
        batch * tokens,
        tokens,
        heads,
        *parts[0].stride()[:3],
        HALF=width // 2,
        PACK=pack,
        ROWS=rows,
        BLOCK=block,
    )


def _packed(s, a, parts, heads):
    batch, tokens, width = s.shape
    return [s.new_empty(batch, heads, tokens, 2 * width // (parts * heads)) for _ in range(parts)]


def _pack_gradient(ctx, grads) -> tuple[Tensor | None, ...]:
    return *unpack_heads(grads), None, None


@operator(fake=_packed, gradient=_pack_gradient)
def pack_heads(s: Tensor, a: Tensor, parts: int, heads: int) -> list[Tensor]:
    """Both halves `[B, N, parts · C/2]` to `parts` tensors `[B, heads, N, C/heads]`, dense in this order."""
    outs = _packed(s, a, parts, heads)
    _move(s.contiguous(), a.contiguous(), outs, pack=True)
    return outs


def _unpacked(parts):
    batch, heads, tokens, width = parts[0].shape
    shape = (batch, tokens, len(parts) * heads * (width // 2))
    return [parts[0].new_empty(shape) for _ in range(2)]


def _unpack_save(ctx, inputs, output):
    ctx.parts, ctx.heads = len(inputs[0]), inputs[0][0].shape[1]


def _unpack_gradient(ctx, grads) -> tuple[list[Tensor]]:
    return (pack_heads(*grads, ctx.parts, ctx.heads),)


@operator(fake=_unpacked, save=_unpack_save, gradient=_unpack_gradient)
def unpack_heads(parts: list[Tensor]) -> list[Tensor]:
    """Its inverse: one to three tensors `[B, heads, N, C/heads]` to both halves."""
    s, a = _unpacked(parts)
    # One set of strides for all: gradients of attention have it, what autograd expanded may not.
    if any(x.stride() != parts[0].stride() or x.stride(-1) != 1 for x in parts):
        parts = [x.contiguous() for x in parts]
    _move(s, a, parts, pack=False)
    return [s, a]
