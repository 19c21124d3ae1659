# %% [markdown]
# # One layer against another
#
# Attention whose queries share fewer keys and values: how much of what it saves becomes time, forward and
# backward? Layers are measured as networks are. Several candidates in a dict are each held against the
# baseline, side by side in one process.

# %% layers
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import flopbench


class Attention(nn.Module):
    """Self-attention of `heads` queries that share `key_heads` keys and values."""

    def __init__(self, width: int, heads: int, key_heads: int) -> None:
        super().__init__()
        self.heads, self.key_heads, self.channels = heads, key_heads, width // heads
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * key_heads * self.channels)

    def forward(self, tokens: Tensor, *, mask: Tensor) -> Tensor:
        """Tokens `[B, N, C]` to tokens; `mask` `[B, N]` is true where a token counts."""
        q = self.q(tokens).unflatten(-1, (self.heads, self.channels)).transpose(1, 2)
        kv = self.kv(tokens).unflatten(-1, (2 * self.key_heads, self.channels)).transpose(1, 2)
        k, v = (x.repeat_interleave(self.heads // self.key_heads, 1) for x in kv.chunk(2, 1))
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


# %% [markdown]
# A dict holds arguments by keyword; tensors of booleans and integers keep their dtype.


# %% inputs
def inputs(batch_size: int) -> dict[str, Tensor]:
    """Tokens, of which the last quarter is padding in every second text."""
    mask = torch.ones(batch_size, 64, dtype=torch.bool)
    mask[1::2, 48:] = False
    return {"tokens": torch.randn(batch_size, 64, 256), "mask": mask}


# %% measure
result = flopbench.benchmark(
    Attention(256, heads=8, key_heads=8),
    {f"{number} key heads": Attention(256, heads=8, key_heads=number) for number in (4, 2)},
    inputs,
    batch_sizes=8,
    passes=["forward", "backward"],
    precision=0.1,
    cell_seconds=2,
)
print(result)

# %% [markdown]
# What was counted, operator by operator, without any timing:

# %% count
print(flopbench.count_flops(Attention(256, heads=8, key_heads=2), inputs(1)))
