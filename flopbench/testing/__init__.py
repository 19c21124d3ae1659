"""Checks of symmetry and of speed, for flopbench itself and for the layers of its users."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flopbench.symmetries.actions import (
        BOXES,
        BY_SYMMETRY,
        INVARIANT,
        SCALARS,
        VECTORS,
        heat_maps,
        keypoints,
    )
    from flopbench.testing.equivariance import assert_equivariant
    from flopbench.testing.invariance import TOLERANCE, equivariance_error, photo, random_images

__all__ = [
    "BOXES",
    "BY_SYMMETRY",
    "INVARIANT",
    "SCALARS",
    "TOLERANCE",
    "VECTORS",
    "assert_equivariant",
    "equivariance_error",
    "heat_maps",
    "keypoints",
    "photo",
    "random_images",
]

# Needing torch, these load on first use: pytest imports this package at every start, for the plugin.
_HOMES = dict.fromkeys(__all__, "flopbench.symmetries.actions")
_HOMES |= {"assert_equivariant": "flopbench.testing.equivariance"}
_HOMES |= dict.fromkeys(
    ("TOLERANCE", "equivariance_error", "photo", "random_images"), "flopbench.testing.invariance"
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flopbench.testing' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
