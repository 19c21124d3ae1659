"""A pointwise non-linearity on mirror pairs (DESIGN: paper, section 4)."""

from collections.abc import Callable

from torch import Tensor

SQRT_HALF = 0.5**0.5


def to_mirror_pairs(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """(s, a) ↦ ((s + a)/√2, (s − a)/√2): what flopping swaps. Its own inverse; shapes `[..., C/2]` each."""
    return (s + a) * SQRT_HALF, (s - a) * SQRT_HALF


def mirror_pointwise(s: Tensor, a: Tensor, fn: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Apply `fn` to each element of the mirror pairs of (s, a), and return to the two halves.

    Flopping swaps the pair's elements, so any pointwise `fn` commutes with it. Shapes `[..., C/2]`.
    """
    plus, minus = to_mirror_pairs(s, a)
    return to_mirror_pairs(fn(plus), fn(minus))
