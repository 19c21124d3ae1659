"""A pair of one's own by name: a transformer on token ids and a mask, whose projections are one or three.

Run in this folder: `flopbench run --suite own_networks.toml`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from flopbench import Inputs

WIDTH, HEADS, VOCABULARY = 128, 4, 1000


class Separate(nn.Module):
    """Queries, keys and values of three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `[B, N, C]` to queries, keys and values side by side, `[B, N, 3C]`."""
        return torch.cat((self.q(x), self.k(x), self.v(x)), dim=-1)


class Block(nn.Module):
    """Attention and a feed-forward layer, each beside a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = Separate(), nn.Linear(WIDTH, WIDTH)
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, N, C]` and a mask that broadcasts to `[B, heads, N, N]`, to tokens."""
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        x = x + self.out(scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        return x + self.feed_forward(self.norms[1](x))


class Encoder(nn.Module):
    """Token ids and a mask of those that count, both `[B, N]`, to a dict of `logits` and `features`."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, token_ids: Tensor, *, mask: Tensor) -> dict[str, Tensor]:
        """Logits `[B, N, VOCABULARY]` and features `[B, N, WIDTH]`."""
        x = self.embedding(token_ids)
        for block in self.blocks:
            x = block(x, mask[:, None, None])
        return {"logits": self.head(x), "features": x}


def separate() -> nn.Module:
    """The baseline: what `own_networks:separate` names."""
    torch.manual_seed(0)
    return Encoder()


def merged() -> nn.Module:
    """The candidate: the same weights, the three projections in one linear layer."""
    network = separate()
    for block in network.blocks:
        parts = block.qkv.q, block.qkv.k, block.qkv.v
        block.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        with torch.no_grad():
            block.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
            block.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
    return network


def tokens(batch_size: int) -> Inputs:
    """What both are called with: the last quarter of every second text is padding."""
    mask = torch.ones(batch_size, 64, dtype=torch.bool)
    mask[1::2, 48:] = False
    return Inputs(torch.randint(VOCABULARY, (batch_size, 64)), mask=mask)


def loss(output: dict[str, Tensor], inputs: Inputs) -> Tensor:
    """What is differentiated: how well the tokens are told."""
    return cross_entropy(output["logits"].flatten(0, 1), inputs.args[0].flatten())
