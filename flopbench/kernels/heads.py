"""From a feature's two halves to the heads of attention and back (paper: see `symmetries.flop`).

On a CPU there is no other: joining the halves is one copy already.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import Operation, choose, triton


def split_heads(s: Tensor, a: Tensor, heads: int, impl: Impl = "auto") -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, each head [its symmetric channels, its antisymmetric channels].

    So the scores are q·k = q_s·k_s + q_a·k_a.

    Args:
        s: `[B, N, 3C/2]`, channels ordered (q, k, v) × head × C/(2·heads).
        a: the same.
        heads: how many.
        impl: what it runs as, see `flopbench.kernels.dispatch`.

    Returns:
        `[B, heads, N, C/heads]` each; eager they are views of one tensor `[B, N, 3, heads, C/heads]`.
    """
    if choose(SPLIT_HEADS, impl, (s, a)).name == "triton":
        from flopbench.kernels.triton import heads as kernels

        q, k, v = kernels.pack_heads(s, a, 3, heads)
        return q, k, v
    return join((s, a), heads)


def join(parts: Sequence[Tensor], heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `split_heads` computes, in torch's operators, of any number of parts `[B, N, 3·C_p]`."""
    split = [x.unflatten(-1, (3, heads, x.shape[-1] // (3 * heads))) for x in parts]
    q, k, v = torch.cat(split, dim=-1).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def merge_heads(x: Tensor, impl: Impl = "auto") -> tuple[Tensor, Tensor]:
    """`[B, heads, N, C/heads]`, laid out like those of `split_heads`, to both halves `[B, N, C/2]`."""
    if choose(MERGE_HEADS, impl, (x,)).name == "triton":
        from flopbench.kernels.triton import heads as kernels

        s, a = kernels.unpack_heads([x])
        return s, a
    return halve(x)


def halve(x: Tensor) -> tuple[Tensor, Tensor]:
    """What `merge_heads` computes, in torch's operators."""
    s, a = x.transpose(1, 2).chunk(2, dim=-1)
    return s.flatten(2), a.flatten(2)


SPLIT_HEADS = Operation("split_heads", join, (triton("2"),))
MERGE_HEADS = Operation("merge_heads", halve, (triton("1"),))
