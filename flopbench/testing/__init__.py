"""Checks of symmetry, for flopbench itself and for the layers of its users."""

from flopbench.testing.equivariance import assert_equivariant
from flopbench.testing.invariance import TOLERANCE, invariance_error, photo, random_images

__all__ = ["TOLERANCE", "assert_equivariant", "invariance_error", "photo", "random_images"]
