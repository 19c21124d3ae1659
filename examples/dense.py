# %% [markdown]
# # A value per pixel
#
# Networks do more than classify, and what they give moves with the image. Features of a network equivariant
# to mirroring, on an image that is not square: symmetric channels move, antisymmetric ones also change sign.

# %% features
import torch
from torch import Tensor

import flopbench
from flopbench.testing import SCALARS, VECTORS, assert_equivariant

size = {"width": 64, "depth": 2, "heads": 2, "image_size": (64, 96)}
images = torch.randn(2, 3, 64, 96)


def answer(network: torch.nn.Module, images: Tensor) -> Tensor:
    """What a network gives, without gradients."""
    with torch.inference_mode():
        return network.eval()(images)


network = flopbench.create_model("vit_s16.flop", task="features", **size)
symmetric, antisymmetric = answer(network, images)
mirrored = answer(network, images.flip(-1))
print("on the grid", tuple(symmetric.shape), tuple(antisymmetric.shape))
print("symmetric moves:", torch.allclose(mirrored[0], symmetric.flip(2), atol=1e-4))
print("antisymmetric changes sign:", torch.allclose(mirrored[1], -antisymmetric.flip(2), atol=1e-4))

# %% [markdown]
# A head makes pixels of them. `SCALARS` move with the image; of `VECTORS`, such as surface normals, the x
# component changes its sign as well. The plain network promises neither.

# %% heads
segmenter = flopbench.create_model("vit_s16.flop", task="segmentation", num_classes=5, decoder="conv", **size)
print("segmentation", tuple(answer(segmenter, images).shape))
assert_equivariant(segmenter, images, action_out=SCALARS)
normals = flopbench.create_model("vit_s16.flop", task="normals", **size)
assert_equivariant(normals, images, action_out=VECTORS)
plain = flopbench.create_model("vit_s16", task="segmentation", num_classes=5, **size)
try:
    assert_equivariant(plain, images, action_out=SCALARS)
except AssertionError as error:
    print(error)

# %% [markdown]
# With rotary positions X itself takes images of any size whose sides are multiples of its patches.

# %% rope
rotary = flopbench.create_model("vit_s16", task="segmentation", num_classes=5, positions="rope", **size)
for height, width in ((64, 96), (128, 80)):
    print(tuple(answer(rotary, torch.randn(1, 3, height, width)).shape))

# %% [markdown]
# Test-time augmentation buys X the same promise at twice the cost. How long does that take, against a network
# that is built with it?

# %% measure
large = {"task": "segmentation", "num_classes": 5, "image_size": 224, "depth": 4}
averaged = flopbench.create_model("vit_s16.tta", **large)
equivariant = flopbench.create_model("vit_s16.flop", **large)
result = flopbench.benchmark(
    averaged,
    {"equivariant": equivariant},
    torch.randn(1, 3, 224, 224),
    passes=["forward"],
    precision=0.5,
    cell_seconds=1,
)
print(result)
