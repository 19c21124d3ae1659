"""Does a network's answer move as its symmetry moves the image? The check that guards every timing."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.models.catalog import parse_name
from flopbench.symmetries import Generator, parts_of
from flopbench.symmetries.actions import INVARIANT, BySymmetry
from flopbench.symmetries.registry import load

# Largest |f(g x) − g f(x)| over the deviation of the output that is rounding. Moved tokens are summed in
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
    # A step of 1/127 of the largest value, at every layer; unrelated outputs still differ by more than 1.
    "int8": 5e-1,
}
"""By the dtypes of suite files, and fp64."""

# Numbers that are compared at a time.
_CHUNK = 2**24

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def promised(name: str) -> tuple[Generator, ...]:
    """The generators g of which a network's name promises that f(g x) = g f(x); none where it promises none.

    It does so whatever its task, which says how they act on f(x).
    """
    parsed = parse_name(name)
    return load(parsed.version.about).generators if parsed.invariant else ()


def equivariance_error(
    model: Callable[[Tensor], Any],
    images: Tensor,
    generators: Iterable[Generator],
    action: BySymmetry = INVARIANT,
) -> float:
    """The largest of the `equivariance_errors`: 0 for an exactly equivariant network.

    Raises:
        ValueError: no generator, so that nothing would be checked.
    """
    return max(equivariance_errors(model, images, generators, action).values())


@torch.no_grad()
def equivariance_errors(
    model: Callable[[Tensor], Any],
    images: Tensor,
    generators: Iterable[Generator],
    action: BySymmetry = INVARIANT,
    output: Any = None,
) -> dict[str, float]:
    """Largest |f(g x) − g f(x)| for each generator g, relative to the standard deviation of the output f(x).

    Of a feature it is the largest of any part, each relative to its own deviation. A single number has no
    deviation: its error is relative to its size.

    Args:
        model: images to a tensor `[B, ...]` or a feature of such parts; a module in eval mode, compiled or
            not.
        images: `[B, 3, H, W]`; square ones where a generator turns them.
        generators: of the group with which the network is to commute.
        action: how the group acts on the output; not at all on logits.
        output: f(images), where the caller has it already.

    Returns:
        The error by the generator's name. Infinite where the question has no honest answer: an output that
        is not finite, all the same (zeros included), with two images or more the same for every image, or
        its own image under a generator that ought to move it.

    Raises:
        FlopbenchError: images, or an output, that a generator cannot act on.
    """
    output = model(images) if output is None else output
    scales = scales_of(output)
    errors = {}
    for generator in generators:
        moved, expected = model(generator.images(images)), action.act(generator, output)
        stays = all(map(torch.equal, parts_of(expected), parts_of(output)))
        if stays and action is not INVARIANT:
            errors[generator.name] = math.inf
        else:
            errors[generator.name] = error_of(moved, expected, scales)
    return errors


def error_of(got: Any, expected: Any, scales: Sequence[float]) -> float:
    """Largest |got − expected| of any part of a feature, over the part's scale; infinite if not finite."""
    errors = []
    for one, other, scale in zip(parts_of(got), parts_of(expected), scales, strict=True):
        # Unlike Python's, this largest one of some of which one is no number is no number either.
        furthest = torch.stack([(x - y).abs().max() for x, y in _chunks(one, other)]).max().item()
        errors.append(furthest / scale)
    return max(error if math.isfinite(error) else math.inf for error in errors)


def scales_of(output: Any) -> list[float]:
    """What errors of each part `[B, ...]` are relative to: its deviation; NaN where it proves nothing."""
    return [_scale(part) for part in parts_of(output)]


def _scale(part: Tensor) -> float:
    count, largest = part.numel(), part.abs().max().item()
    if count == 1:
        return largest or math.nan
    mean = sum(x.sum().item() for (x,) in _chunks(part)) / count
    spread = math.sqrt(sum((x - mean).square().sum().item() for (x,) in _chunks(part)) / (count - 1))
    # Written so that NaN fails.
    honest = math.isfinite(spread) and spread > 1e-9 * largest
    if honest and len(part) > 1:
        honest = any((x - part[0]).abs().max().item() > 1e-6 * spread for (x,) in _chunks(part))
    return spread if honest else math.nan


def _chunks(*parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors `[B, ...]` in double precision, some rows at a time: values of pixels fill much of a device."""
    rows = max(1, _CHUNK // max(1, parts[0][:1].numel()))
    for some in zip(*(part.split(rows) for part in parts), strict=True):
        yield tuple(part.double() for part in some)


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
