"""A pointwise non-linearity on mirror pairs (paper: see `symmetries.flop`)."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import (
    Operation,
    Why,
    choose,
    cpp,
    inductor,
    library_is_faster,
    triton,
    unlike,
)
from flopbench.kernels.inductor import compiled

SQRT_HALF = 0.5**0.5

Pointwise = Callable[[Tensor], Tensor]
Activation = Literal["gelu", "quick_gelu"]


def quick_gelu(x: Tensor) -> Tensor:
    """x · σ(1.702 x), the sigmoid approximation of GELU. `[...]` to the same shape."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, Pointwise] = {"gelu": F.gelu, "quick_gelu": quick_gelu}


def to_mirror_pairs(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """(s, a) ↦ ((s + a)/√2, (s − a)/√2): what flopping swaps. Its own inverse; shapes `[..., C/2]` each."""
    # Scaled in place: a fresh result that nobody else has seen.
    return (s + a).mul_(SQRT_HALF), (s - a).mul_(SQRT_HALF)


def mirror_pointwise(s: Tensor, a: Tensor, fn: Pointwise) -> tuple[Tensor, Tensor]:
    """Apply `fn` to each element of the mirror pairs of (s, a), and return to the two halves.

    Flopping swaps the pair's elements, so any pointwise `fn` commutes with it. Shapes `[..., C/2]`.
    """
    plus, minus = to_mirror_pairs(s, a)
    return to_mirror_pairs(fn(plus), fn(minus))


def hadamard4(ss: Tensor, sa: Tensor, as_: Tensor, aa: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The 4-point Hadamard transform × 1/2: mirror pairs of channels of mirror pairs of tokens.

    Its own inverse; one shape for all.
    """
    sum_s, difference_s = ss + sa, ss - sa
    sum_a, difference_a = as_ + aa, as_ - aa
    return (
        (sum_s + sum_a) * 0.5,
        (difference_s + difference_a) * 0.5,
        (sum_s - sum_a) * 0.5,
        (difference_s - difference_a) * 0.5,
    )


def mirror_pointwise_tokens(
    ss: Tensor, sa: Tensor, as_: Tensor, aa: Tensor, fn: Pointwise
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`mirror_pointwise` where the tokens are transformed as well.

    Args:
        ss: `[B, n_s, C/2]`, the tokens that are their own mirror images last.
        sa: `[B, n_a, C/2]`, n_a ≤ n_s.
        as_: `[B, n_s, C/2]`.
        aa: `[B, n_a, C/2]`.
        fn: pointwise.

    Returns:
        The four quarters in the same order and shapes.
    """
    paired, alone = sa.shape[1], ss.shape[1] - sa.shape[1]
    if not alone:
        one, two, three, four = hadamard4(ss, sa, as_, aa)
        return hadamard4(fn(one), fn(two), fn(three), fn(four))
    # What has no partner token has a partner channel all the same.
    pairs = mirror_pointwise_tokens(ss[:, :paired], sa, as_[:, :paired], aa, fn)
    single = mirror_pointwise(ss[:, paired:], as_[:, paired:], fn)
    return torch.cat([pairs[0], single[0]], 1), pairs[1], torch.cat([pairs[2], single[1]], 1), pairs[3]


def pointwise_parts(parts: Sequence[Tensor], kind: Activation) -> Sequence[Tensor]:
    """A GELU of one part itself, of two halves or four quarters in mirror pairs."""
    fn = ACTIVATIONS[kind]
    match len(parts):
        case 1:
            return [fn(parts[0])]
        case 2:
            return mirror_pointwise(parts[0], parts[1], fn)
        case 4:
            return mirror_pointwise_tokens(parts[0], parts[1], parts[2], parts[3], fn)
    raise ValueError(f"a GELU is of 1, 2 or 4 parts, got {len(parts)}")


def gelu(parts: Sequence[Tensor], kind: Activation = "gelu", impl: Impl = "auto") -> Sequence[Tensor]:
    """A GELU of a feature's parts: "gelu" is the exact one.

    Args:
        parts: one; two halves of one shape; or four quarters as `mirror_pointwise_tokens` takes them.
        kind: which.
        impl: what it runs as, see `flopbench.kernels.dispatch`.

    Returns:
        As many, of the same shapes.

    Raises:
        ValueError: another number of parts.
    """
    which = choose(GELU, impl, parts, kind).name
    if which == "triton":
        from flopbench.kernels.triton import mirror_gelu as kernels

        return kernels.mirror_gelu(list(parts), kind)
    if which == "cpp":
        from flopbench.kernels.cpp.gelu import gelu_parts

        return gelu_parts(list(parts))
    if which == "inductor":
        return compiled(_OF_PARTS[len(parts)], parts[0])(*parts, ACTIVATIONS[kind])
    return pointwise_parts(parts, kind)


def not_exact(parts: Sequence[Tensor], kind: Activation) -> Why:
    """A reason against what has the exact GELU alone, of parts of one shape."""
    return unlike(parts) if kind == "gelu" else f"{kind} is not the exact GELU"


_OF_PARTS = {2: mirror_pointwise, 4: mirror_pointwise_tokens}
GELU = Operation(
    "gelu",
    pointwise_parts,
    (triton("2", "4"), cpp("1", "2", "4", cannot=not_exact, slower=library_is_faster), inductor("2", "4")),
)
