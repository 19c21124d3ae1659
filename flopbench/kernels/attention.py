"""Scaled dot-product attention of plain heads: the same for every symmetry.

torch's fused operator, but for bf16 on a CPU that multiplies bf16 and has no AMX tiles. There two batched
products with the scores in memory are 1.75 times as fast, and 2.4 times with the gradients; in fp32 they are
slower, 0.98 and 0.85 (8 × 12 heads of 197 tokens and 64 channels, two cores of an AMD EPYC, torch 2.13;
tests/benchmarks/test_kernels.py). fp16, which that CPU does not multiply, is left to the fused operator too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_TOKENS = 1024
"""A choice, not a measurement: the scores of 12 heads then take 24 MiB an image in bf16."""


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
