"""The layout of features: two tensors and two products, or one stacked tensor and one batched product.

    pytest tests/benchmarks/test_layouts.py --benchmark-enable --benchmark-save=NAME

Products of a ViT's block at batch 8, as they come forward and in both gradients; the weights are stacked
already, so that the batched product is not charged with a copy.
"""

import pytest
import torch
from torch import Tensor

ROWS = 8 * 197
PRODUCTS = {
    "forward": lambda x, weight, grad: (x, weight.transpose(-2, -1)),
    "grad_x": lambda x, weight, grad: (grad, weight),
    "grad_weight": lambda x, weight, grad: (grad.transpose(-2, -1), x),
}


def _two(one: Tensor, two: Tensor) -> Tensor:
    s, a = one[0] @ two[0], one[1] @ two[1]
    # What is compared is small: to stack all of it would be timed too.
    return torch.stack([s[0], a[0]])


def _batched(one: Tensor, two: Tensor) -> Tensor:
    return torch.bmm(one, two)[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [384, 768])
@pytest.mark.parametrize("product", PRODUCTS)
def test_two_products_against_one_batched(flopbench, product, width, dtype):
    half = width // 2
    x, weight, grad = (
        torch.randn(2, *shape).to(dtype) for shape in ((ROWS, half), (4 * half, half), (ROWS, 4 * half))
    )
    flopbench.compare(_two, _batched, *PRODUCTS[product](x, weight, grad))
