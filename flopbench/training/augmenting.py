"""What a recipe does to images of files: timm's transforms in worker processes, erasing on the device."""

from typing import Any

import torch
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from flopbench.errors import FlopbenchError
from flopbench.recipes import Recipe
from flopbench.training.batches import seeded
from flopbench.training.loading import Transform


class Augmenter:
    """The augmentation of a recipe.

    Raises:
        FlopbenchError: timm has no such policy.
    """

    def __init__(self, recipe: Recipe, mean: tuple[float, ...], device: torch.device):
        self._recipe = recipe
        self._mean = mean
        self._device = device
        share = recipe.augmentation.erasing
        self._erasing = RandomErasing(share, mode="pixel", device=str(device)) if share else None
        self.transform()

    def transform(self, mirror: float | None = None) -> Transform:
        """What becomes of an image, a share of `mirror` being mirrored; None: as many as the recipe says."""
        own = self._recipe.augmentation
        mirror = own.mirror if mirror is None else mirror
        try:
            parts: Any = create_transform(
                self._recipe.image_size,
                is_training=True,
                scale=own.crop_scale,
                hflip=mirror,
                color_jitter=own.colour_jitter,
                auto_augment=own.policy,
                interpolation=own.interpolation,
                mean=self._mean,
                normalize=False,
                separate=True,
            )
        except (AssertionError, KeyError, ValueError):
            raise FlopbenchError(
                f"{self._recipe.name}: timm has no policy {own.policy!r}, as 3a is one"
            ) from None
        first, *others = parts
        if own.crop_scale is None:
            size = self._recipe.image_size
            first = transforms.Compose(
                [
                    transforms.Resize(min(size), InterpolationMode(own.interpolation)),
                    transforms.RandomCrop(
                        size, own.shift or None, pad_if_needed=True, padding_mode="reflect"
                    ),
                    transforms.RandomHorizontalFlip(mirror),
                ]
            )
        return transforms.Compose([first, *others])

    def erased(self, images: Tensor, *key: int) -> Tensor:
        """A batch [B, 3, H, W], rectangles of noise in some of its images, by random numbers of a key."""
        if self._erasing is None:
            return images
        with seeded(*key, device=self._device):
            return self._erasing(images)


def evaluation_transform(
    image_size: tuple[int, int], crop: float, interpolation: str, mean: tuple[float, ...]
) -> Transform:
    """The centre crop of `image_size` from an image of which that is a share of `crop`, bytes."""
    transform: Any = create_transform(
        image_size, crop_pct=crop, interpolation=interpolation, mean=mean, normalize=False
    )
    return transform
