"""The non-linearity between a transform of a feature's parts and its inverse, in one kernel; its gradient.

Timed forward (reports/gpu-h200.md): of halves and quarters as fast as what inductor makes of the eager
operations, of octic parts faster; with gradients not timed. It reads every element once and writes it, the
gradient reads two and writes one; the eager operations, a kernel each, move some 12 elements for each of two
halves forward. Bound by memory: at 4 bytes (bf16) for an error function, some 30 operations, it needs less
than half of an H100's fp32 rate. Only inputs are kept.
"""

# ruff: noqa: ANN001, ANN201, N803
# Triton declares its constants by a type that has no length, and its unrolled range as what never returns.
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

import triton
import triton.language as tl
from torch import Tensor

from flopbench.kernels.operator import operator
from flopbench.kernels.triton import INTERPRETED, Slices, launch, tiles, wide

_SQRT_HALF = tl.constexpr(0.5**0.5)
# 1/√(2π)
_DENSITY = tl.constexpr(0.3989422804014327)


@triton.jit
def _sigmoid(x):
    # Of −|x|, so that nothing overflows.
    small = tl.exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1 + small)


@triton.jit
def _value(x, KIND: tl.constexpr):
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
def _hadamard(x):
    """The orthogonal transform of 1, 2, 4 or 8 points, each a tile; its own inverse."""
    SCALE: tl.constexpr = len(x) ** -0.5
    for bit in tl.static_range(3):
        if 1 << bit < len(x):
            y = ()
            for k in tl.static_range(len(x)):
                other = x[k ^ (1 << bit)]
                y += ((other - x[k]) if (k >> bit) % 2 else (x[k] + other),)
            x = y
    y = ()
    for k in tl.static_range(len(x)):
        y += (x[k] * SCALE,)
    return y


@triton.jit
def _signed(x, SIGNS: tl.constexpr):
    y = ()
    for k in tl.static_range(len(x)):
        y += (x[k] * SIGNS[k],)
    return y


@triton.jit
def activated(points, SIGNS: tl.constexpr, KIND: tl.constexpr):
    """The GELU of a tuple of tiles, which are points of a transform but for their signs."""
    points = _hadamard(_signed(points, SIGNS))
    y = ()
    for k in tl.static_range(len(points)):
        y += (_value(points[k], KIND),)
    return _signed(_hadamard(y), SIGNS)


@triton.jit
def _sloped(points, grads, SIGNS: tl.constexpr, KIND: tl.constexpr):
    """The gradient of `activated`, for the transform is symmetric."""
    points = _hadamard(_signed(points, SIGNS))
    grads = _hadamard(_signed(grads, SIGNS))
    y = ()
    for k in tl.static_range(len(points)):
        y += (grads[k] * _slope(points[k], KIND),)
    return _signed(_hadamard(y), SIGNS)


@triton.jit
def _place(at, CHANNELS: tl.constexpr, SLICE: tl.constexpr, OF: tl.constexpr):
    """Where elements `at` of a slice are in a part whose rows have OF slices."""
    return at + (at // CHANNELS * (OF - 1) + SLICE) * CHANNELS


@triton.jit
def _load(
    ptrs, at, inside, CHANNELS: tl.constexpr, SLICE: tl.constexpr, OF: tl.constexpr, WIDE: tl.constexpr
):
    x = ()
    for k in tl.static_range(len(ptrs)):
        place = _place(at, CHANNELS, SLICE[k], OF[k])
        x += (tl.load(ptrs[k] + place, mask=inside, other=0.0).to(WIDE),)
    return x


@triton.jit
def gelu_kernel(
    points,
    grads,
    outs,
    count,
    CHANNELS: tl.constexpr,
    SLICE: tl.constexpr,
    OF: tl.constexpr,
    SIGNS: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """BLOCK elements of every point: the values or, given gradients of the output, those of the input.

    A point is a SLICE of CHANNELS channels of a part of so many (OF). Pointers are the parts', by point.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    x = _load(points, at, inside, CHANNELS, SLICE, OF, WIDE)
    if len(grads) == 0:
        y = activated(x, SIGNS, KIND)
    else:
        y = _sloped(x, _load(grads, at, inside, CHANNELS, SLICE, OF, WIDE), SIGNS, KIND)
    for k in tl.static_range(len(y)):
        tl.store(outs[k] + _place(at, CHANNELS, SLICE[k], OF[k]), y[k], mask=inside)


def _like(parts, *_):
    return [x.new_empty(x.shape) for x in parts]


def _save(ctx, inputs, output):
    parts, *ctx.how = inputs
    ctx.save_for_backward(*parts)


def _gradient(ctx, grads):
    return gelu_backward(list(ctx.saved_tensors), grads, *ctx.how), None, None, None, None


@operator(fake=_like, save=_save, gradient=_gradient)
def gelu(
    parts: list[Tensor], slices: list[int], order: list[int], signs: list[int], kind: str
) -> list[Tensor]:
    """`flopbench.kernels.gelu.gelu` by a transform of 2, 4 or 8 points.

    Args:
        parts: `[..., slices_p · c]` each.
        slices: of channels in each part.
        order: the slice of each point, slices being numbered part after part.
        signs: of each point.
        kind: of GELU.
    """
    return _run(parts, None, slices, order, signs, kind)


@operator(fake=_like)
def gelu_backward(
    parts: list[Tensor], grads: list[Tensor], slices: list[int], order: list[int], signs: list[int], kind: str
) -> list[Tensor]:
    """Gradients of the parts."""
    return _run(parts, grads, slices, order, signs, kind)


def _run(
    parts: list[Tensor],
    grads: list[Tensor] | None,
    slices: list[int],
    order: list[int],
    signs: list[int],
    kind: str,
) -> list[Tensor]:
    outs = _like(parts)
    count = parts[0].numel() // slices[0]
    if count:
        at = Slices.of_parts(slices, order)
        lists = (at.of_each(x) for x in (parts, grads or (), outs))
        # Of bf16 a thread loads 16 bytes per point, of 8 points half as many: else they fill the registers.
        block = 256 if INTERPRETED else 1024 if len(order) < 8 else 512
        launch(
            gelu_kernel,
            (tiles(count, block),),
            parts[0],
            *lists,
            count,
            CHANNELS=parts[0].shape[-1] // slices[0],
            SLICE=at.at,
            OF=at.of,
            SIGNS=tuple(signs),
            KIND=kind,
            BLOCK=block,
            WIDE=wide(parts[0]),
        )
    return outs
