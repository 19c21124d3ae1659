"""Is a network's answer the same however its symmetry moves the image? The check that guards every timing."""

import math
from collections.abc import Callable, Iterable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.models.catalog import parse_name
from flopbench.symmetries import Generator
from flopbench.symmetries.actions import INVARIANT, BySymmetry
from flopbench.symmetries.registry import load

# Largest |f(x) − f(g x)| over the deviation of the logits that is rounding. Moved tokens are summed in
# another order, so it grows with depth, and far less than the tolerance: a wrong sign or a missing bias
# gives errors of order 1.
TOLERANCE: dict[str, float] = {
    "fp64": 1e-9,
    "fp32": 1e-4,
    "tf32": 5e-2,
    "fp16": 5e-2,
    "autocast-fp16": 5e-2,
    "bf16": 2e-1,
    "autocast-bf16": 2e-1,
}
"""By the dtypes of suite files, and fp64."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def promised(name: str) -> tuple[Generator, ...]:
    """The generators g of which a network's name promises that f(g x) = f(x); none where it promises none."""
    parsed = parse_name(name)
    return load(parsed.version.about).generators if parsed.invariant else ()


def invariance_error(
    model: Callable[[Tensor], Tensor], images: Tensor, generators: Iterable[Generator]
) -> float:
    """The largest of the `invariance_errors`: 0 for an exactly invariant network.

    Raises:
        ValueError: no generator, so that nothing would be checked.
    """
    return max(invariance_errors(model, images, generators).values())


@torch.no_grad()
def invariance_errors(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    generators: Iterable[Generator],
    logits: Tensor | None = None,
    action: BySymmetry = INVARIANT,
) -> dict[str, float]:
    """Largest |f(g x) − g f(x)| for each generator g, relative to the standard deviation of the output f(x).

    A single logit has no deviation: its error is relative to its size.

    Args:
        model: images to logits `[B, classes]`; a module in eval mode, compiled or not.
        images: `[B, 3, H, W]`; square ones where a generator turns them.
        generators: of the group that is to leave the logits alone.
        logits: f(images), where the caller has them already.
        action: how the group acts on the output; not at all on logits.

    Returns:
        The error by the generator's name. Infinite where the question has no honest answer: logits that
        are not finite, all the same (zeros included), or, with two images or more, the same for every
        image.

    Raises:
        FlopbenchError: images that a generator cannot act on.
    """
    logits = (model(images) if logits is None else logits).double()
    spread = (logits.std() if logits.numel() > 1 else logits.abs().sum()).item()
    # Written so that NaN fails.
    honest = math.isfinite(spread) and spread > 1e-9 * logits.abs().max().item()
    if honest and len(images) > 1:
        honest = (logits - logits.mean(0)).abs().max().item() > 1e-6 * spread
    errors = {}
    for generator in generators:
        moved = model(generator.images(images)).double()
        error = (moved - action.act(generator, logits)).abs().max().item() / spread if honest else math.inf
        errors[generator.name] = error if math.isfinite(error) else math.inf
    return errors


def random_images(
    batch: int,
    size: int | tuple[int, int] = 224,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
    channels: int = 3,
) -> Tensor:
    """Normal noise `[batch, channels, H, W]`, the same values on every device.

    Args:
        batch: number of images.
        size: pixels, one number for square images or (height, width).
        dtype: of the result; the values are drawn in fp32.
        device: of the result; the values are drawn on the CPU.
        seed: chooses the values.
        channels: of each image.
    """
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator).to(device, dtype)


def photo(
    size: int | tuple[int, int] = 224,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A photograph `[batch, 3, H, W]`, normalised as ImageNet is: the portrait of matplotlib's sample data.

    Args:
        size: pixels, one number for square images or (height, width).
        batch: number of images; each is cropped a little tighter than the one before.
        dtype: of the result.
        device: of the result.
    """
    target = (size, size) if isinstance(size, int) else tuple(size)
    whole = _photograph()
    crops = []
    for index in range(batch):
        # The corner stays, so no crop is symmetric by chance.
        height, width = (round(side * (1 - 0.5 * index / batch)) for side in whole.shape[-2:])
        crop = whole[..., :height, :width]
        crops.append(F.interpolate(crop, target, mode="bilinear", align_corners=False, antialias=True))
    return torch.cat(crops).to(device, dtype)


@cache
def _photograph() -> Tensor:
    from matplotlib import cbook, image

    path = str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    pixels = torch.tensor(image.imread(path), dtype=torch.float32) / 255
    mean, deviation = torch.tensor(_IMAGENET_MEAN), torch.tensor(_IMAGENET_DEVIATION)
    return ((pixels - mean) / deviation).permute(2, 0, 1).unsqueeze(0)
