"""Fused operations against the eager ones that specify them, on a GPU.

pytest tests/benchmarks/test_kernels.py --benchmark-enable --benchmark-save=NAME
"""

from functools import partial

import pytest
import torch

from flopbench.kernels import heads, layer_norm, linear, mirror_gelu

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="Triton's kernels are timed on a GPU")

# ViT-B's halves at batch 64.
BATCH, TOKENS, HALF, HEADS = 64, 197, 384, 12


def _random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def _feature(channels=HALF):
    return [_random(BATCH, TOKENS, channels) for _ in range(2)]


def _vectors(count):
    return [_random(HALF) for _ in range(count)]


OPERATIONS = {
    "layer_norm": lambda: partial(layer_norm.layer_norm_halves, *_feature(), *_vectors(3), 1e-6),
    "add_layer_norm": lambda: partial(
        layer_norm.add_layer_norm_halves, *_feature(), *_feature(), *_vectors(5), 1e-6
    ),
    "mirror_gelu": lambda: partial(mirror_gelu.mirror_gelu, *_feature(4 * HALF), "gelu"),
    "mirror_gelu_tokens": lambda: partial(
        mirror_gelu.mirror_gelu_tokens, *(_random(BATCH, 98, 4 * HALF) for _ in range(4)), "gelu"
    ),
    "split_heads": lambda: partial(heads.split_heads, *_feature(3 * HALF), HEADS),
    "merge_heads": lambda: partial(heads.merge_heads, _random(BATCH, HEADS, TOKENS, 2 * HALF // HEADS)),
    "linear": lambda: partial(
        linear.linear_halves, *_feature(), _random(4 * HALF, HALF), _random(4 * HALF, HALF), None
    ),
    "linear_gelu": lambda: partial(
        linear.linear_gelu_halves, *_feature(), _random(4 * HALF, HALF), _random(4 * HALF, HALF), None, "gelu"
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(flopbench, name):
    operation = OPERATIONS[name]()
    flopbench.compare(partial(operation, impl="eager"), partial(operation, impl="fused"))
