"""Our own layers against the plain ones, side by side.

    pytest tests/benchmarks --benchmark-enable --benchmark-save=NAME

Without `--benchmark-enable` outputs are checked and nothing is timed. What a layer has to gain at these
sizes on a CPU is stated where the arithmetic promises it; the others are tracked.
"""

import pytest
import torch

from flopbench.models.vit import Block
from flopbench.symmetries import FLOP, PLAIN, Halves

WIDTH, HEADS, BATCH, TOKENS = 192, 6, 4, 65


def _feature(symmetry, width=WIDTH):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, TOKENS, width, generator=generator)
    return x if symmetry is PLAIN else Halves(*x.chunk(2, dim=-1))


def _both(build, width=WIDTH):
    """The plain layer and the equivariant one, each called with a feature of its own kind."""
    calls = []
    for symmetry in (PLAIN, FLOP):
        layer, x = build(symmetry).eval(), _feature(symmetry, width)
        calls.append(lambda layer=layer, x=x: layer(x))
    return calls


LAYERS = {
    "linear": lambda symmetry: symmetry.linear(WIDTH, 4 * WIDTH),
    "layer_norm": lambda symmetry: symmetry.layer_norm(WIDTH, 1e-6),
    "gelu": lambda symmetry: symmetry.activation("gelu"),
    "block": lambda symmetry: Block(
        symmetry,
        WIDTH,
        HEADS,
        eps=1e-6,
        layer_scale=1e-4,
        drop_path=0.0,
        dropout=0.0,
        fused=True,
        rotary=False,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(flopbench, name):
    flopbench.compare(*_both(LAYERS[name]))


def test_patch_embedding(flopbench):
    images = torch.randn(BATCH, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    flopbench.compare(PLAIN.patch_embed(3, WIDTH, 16), FLOP.patch_embed(3, WIDTH, 16), images)


def test_a_large_linear_gains_from_half_the_macs(flopbench):
    width = 1024
    flopbench.compare(*_both(lambda symmetry: symmetry.linear(width, width), width), min_speedup=1.1)
