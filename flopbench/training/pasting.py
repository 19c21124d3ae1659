"""Silhouettes pasted on textures: images with a class per pixel, composed the same way for ever.

What is drawn for a silhouette follows from its own digest and not from a generator of random numbers, whose
numbers another version of numpy may change: neither the order of the images nor who else is in the set
matters.
"""

import hashlib

import numpy as np

Array = np.ndarray

SIDE = 32
"""Pixels of an image each way."""

FOREGROUND = 40
"""A silhouette is where its image is brighter than that."""

# Of bytes: how bright the ground is, and how much brighter the animal; both are drawn from so much upward.
_DARKEST, _BRIGHTEST, _LEAST, _MOST = 80, 128, 56, 112
# The share that textures have of their contrast, in 1/128.
_FAINTEST, _FULLEST = 16, 56


def pasted(silhouettes: Array, labels: Array, textures: Array) -> tuple[Array, Array]:
    """Each silhouette filled with one texture and at a place on another one.

    Both textures are crops from anywhere, mirrored or not, of brightness and contrast that are drawn as well:
    the animal is brighter than its own ground, but no threshold tells all animals from all grounds. A mirror
    image is as likely as the image.

    Args:
        silhouettes: grey images [N, h, w], bytes, of up to `SIDE` pixels.
        labels: their classes [N], from 0.
        textures: grey images [T, H, W], bytes, at least two.

    Returns:
        Images [N, SIDE, SIDE], bytes, and the class of each of their pixels, bytes: 0 is the ground, k + 1 a
        silhouette of label k.
    """
    draws = _Draws(silhouettes)
    below = draws.below(len(textures))
    # Another one.
    above = (below + 1 + draws.below(len(textures) - 1)) % len(textures)
    light = _DARKEST + draws.below(_BRIGHTEST - _DARKEST + 1)
    lights = light, light + _LEAST + draws.below(_MOST - _LEAST + 1)
    ground, animal = (_shown(draws, textures, *drawn) for drawn in zip((below, above), lights, strict=True))
    masks = _placed(draws, silhouettes > FOREGROUND)
    return np.where(masks, animal, ground), masks * (labels + 1).astype(np.uint8)[:, None, None]


class _Draws:
    """Numbers that follow from each image's digest, one [N] after another."""

    def __init__(self, images: Array) -> None:
        # Not the digests by which a set is split: one split would have other numbers than the other.
        digests = b"".join(hashlib.sha256(b"pasted" + image.tobytes()).digest() for image in images)
        self._words = iter(np.frombuffer(digests, ">u2").reshape(len(images), 16).T.astype(np.int64))

    def below(self, limit: int) -> Array:
        """From 0 up to `limit`, all alike likely but for what 2^16 leaves over."""
        return next(self._words) * limit >> 16


def _shown(draws: _Draws, textures: Array, which: Array, brightness: Array) -> Array:
    """A crop of a texture each, of a mean brightness, [N, SIDE, SIDE] bytes."""
    (_, height, width), steps = textures.shape, np.arange(SIDE)
    rows, columns = (draws.below(side - SIDE + 1)[:, None] + steps for side in (height, width))
    columns = np.where(draws.below(2)[:, None] == 1, columns[:, ::-1], columns)
    crops = textures[which[:, None, None], rows[:, :, None], columns[:, None, :]].astype(np.int32)
    # Whole numbers, which are the same everywhere.
    middle = textures.mean((1, 2)).round().astype(np.int32)[which]
    contrast = _FAINTEST + draws.below(_FULLEST - _FAINTEST + 1)
    each = (slice(None), None, None)
    lit = brightness[each] + ((crops - middle[each]) * contrast[each] >> 7)
    return lit.clip(0, 255).astype(np.uint8)


def _placed(draws: _Draws, masks: Array) -> Array:
    """Masks [N, h, w] within larger ones [N, SIDE, SIDE], anywhere."""
    sides, steps = masks.shape[1:], np.arange(SIDE)
    rows, columns = (steps - draws.below(SIDE - side + 1)[:, None] for side in sides)
    inside = [(place >= 0) & (place < side) for place, side in zip((rows, columns), sides, strict=True)]
    rows, columns = (place.clip(0, side - 1) for place, side in zip((rows, columns), sides, strict=True))
    images = np.arange(len(masks))[:, None, None]
    found = masks[images, rows[:, :, None], columns[:, None, :]]
    return found & inside[0][:, :, None] & inside[1][:, None, :]
