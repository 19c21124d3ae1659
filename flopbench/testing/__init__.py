"""Checks of symmetry and of speed, for flopbench itself and for the layers of its users."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flopbench.testing.equivariance import BY_SYMMETRY, assert_equivariant
    from flopbench.testing.invariance import TOLERANCE, invariance_error, photo, random_images

__all__ = ["BY_SYMMETRY", "TOLERANCE", "assert_equivariant", "invariance_error", "photo", "random_images"]

# Needing torch, these load on first use: pytest imports this package at every start, for the plugin.
_HOMES = dict.fromkeys(__all__, "flopbench.testing.invariance")
_HOMES |= dict.fromkeys(("BY_SYMMETRY", "assert_equivariant"), "flopbench.testing.equivariance")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flopbench.testing' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
