"""Scaled dot-product attention of plain heads: the same for every symmetry.

torch's fused operator, but for bf16 on a CPU that multiplies bf16 and has no AMX tiles. There two batched
products with the scores in memory take little more than half the time: 2.6 ms against 4.9 for 8 × 6 heads of
197 tokens and 64 channels on two cores of an AMD EPYC (torch 2.13), 7 against 19 with the gradients, and 71
against 123 for 12 heads of 2305 tokens. In fp32 the fused operator is as fast or faster, in fp16, which that
CPU does not multiply, ten times as fast and more.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_TOKENS = 1024
"""Beyond it scores take more memory than the time is worth: 24 MiB an image for 12 heads."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ/√d) v by what is fastest where the tensors are. `[B, heads, N, d]` each.

    Whichever it is has the same MACs. With scores in memory these are rounded to bf16, as the result of
    every product is; the softmax itself is computed in fp32.
    """
    if _scores_in_memory(q):
        return unfused_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def unfused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ/√d) v with the scores in memory, as the paper timed it. `[B, heads, N, d]` each."""
    # The scale goes on the smaller operand. It also keeps inductor from recognising attention and
    # calling the fused operator in its stead.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


def _scores_in_memory(q: Tensor) -> bool:
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.shape[-2] > MOST_TOKENS:
        return False
    return _multiplies_bf16_without_tiles()


@torch.compiler.assume_constant_result
def _multiplies_bf16_without_tiles() -> bool:
    # torch has no public name for these in all versions that are supported.
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
