"""Scaled dot-product attention: the same for every symmetry.

Which way it is computed goes by what was measured (reports/speed.md; tests/benchmarks/test_kernels.py):

- bf16 on a CPU that multiplies bf16 and has no AMX tiles: two batched products with the scores in memory,
  faster than torch's fused operator; in fp32 they are slower.
- fp32 on a CPU where a C++ compiler is at hand: from the parts of a feature (`kernels.cpp.attention`), of any
  number of tokens. Torch's operator needs the parts side by side.
- Everything else: torch's fused operator. So is fp16, which that CPU does not multiply.

On a GPU a kernel in Triton reads the parts too (`kernels.triton.attention`). Of halves it was measured much
faster than torch's operator, which needs them side by side; of one part mostly slower (reports/gpu-h200.md).
"auto" takes what the table of measurements says; gradients are not in it yet.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench import private
from flopbench.kernels import Impl, Name
from flopbench.kernels.dispatch import Implementation, Operation, Why, choose, cpp, triton, unlike

MOST_TOKENS = 1024
"""With the scores in memory. A choice, not a measurement: those of 12 heads then take 24 MiB per image in
bf16."""

MOST_CHANNELS = 128
"""Of a head, in Triton: what a block of rows leaves of the registers."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ/√d) v by torch's fused operator. `[B, heads, N, d]` each."""
    return F.scaled_dot_product_attention(q, k, v)


def unfused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ/√d) v with the scores in memory, as the paper timed it. `[B, heads, N, d]` each.

    It has the same MACs. In low precision scores are rounded to it, as the result of every product is.
    """
    # The scale goes on the smaller operand. It also keeps inductor from recognising attention and
    # calling the fused operator in its stead.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


def attention_parts(qkv: Sequence[Tensor], heads: int, impl: Impl | Name = "auto") -> list[Tensor]:
    """softmax(q kᵀ/√d) v of heads that are the concatenation of the same head of all parts.

    So its scores are q·k = Σ_p q_p·k_p: parts lie side by side within a head.

    Args:
        qkv: `[B, N, 3·C_p]` each, channels ordered (q, k, v) × head × C_p/heads.
        heads: how many.
        impl: what it runs as, see `flopbench.kernels.dispatch`; "unfused" too.

    Returns:
        `[B, N, C_p]` for each part.
    """
    which = choose(ATTENTION, impl, qkv, heads).name
    if which == "triton":
        from flopbench.kernels.triton import attention as fused

        return fused.flash_attention_parts(list(qkv), heads)[:-1]
    if which == "cpp":
        from flopbench.kernels.cpp import attention as kernels

        return kernels.attention_parts(list(qkv), heads)[:-1]
    return by_heads(qkv, heads, unfused_attention if which == "unfused" else attention)


def by_heads(
    qkv: Sequence[Tensor], heads: int, way: Callable[[Tensor, Tensor, Tensor], Tensor] = attention
) -> list[Tensor]:
    """`attention_parts` in torch's operators, on any device and in any dtype."""
    # Queries', keys' and values' on one axis, so that what is exported takes no axis apart.
    split = [x.unflatten(-1, (3 * heads, -1)) for x in qkv]
    # One part is seen as heads, several are copied side by side.
    joined = split[0] if len(split) == 1 else torch.cat(split, dim=-1)
    q, k, v = joined.transpose(1, 2).split(heads, dim=1)
    mixed = way(q, k, v).transpose(1, 2)
    if len(split) == 1:
        return [mixed.flatten(2)]
    return [x.flatten(2) for x in mixed.split([x.shape[-1] for x in split], dim=-1)]


def _idle_threads(parts: Sequence[Tensor], heads: int) -> Why:
    return "fewer heads than threads" if parts[0].shape[0] * heads < _threads() else ""


def _many_parts(parts: Sequence[Tensor]) -> Why:
    return "written for 1 and 2 parts" if len(parts) > 2 else ""


def _too_wide(parts: Sequence[Tensor], heads: int) -> Why:
    channels = len(parts) * parts[0].shape[-1] // (3 * heads)
    return unlike(parts) or (
        f"more than {MOST_CHANNELS} channels per head" if channels > MOST_CHANNELS else ""
    )


def _fused_is_faster(parts: Sequence[Tensor], heads: int) -> Why:
    x = parts[0]
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or not _multiplies_bf16_without_tiles():
        return "for bf16 on a CPU that multiplies it and has no tiles for it"
    return f"more than {MOST_TOKENS} tokens" if x.shape[1] > MOST_TOKENS else ""


@torch.compiler.assume_constant_result
def _threads() -> int:
    return torch.get_num_threads()


@torch.compiler.assume_constant_result
def _multiplies_bf16_without_tiles() -> bool:
    return private.multiplies_bf16_without_tiles()


ATTENTION = Operation(
    "attention",
    by_heads,
    (
        triton(_many_parts, _too_wide),
        cpp(slower=_idle_threads),
        Implementation("unfused", slower=_fused_is_faster),
    ),
)
"""Its parts are those of query, key and value together, `[B, N, 3·C_p]`."""
