"""Operations of the equivariant layers, one file an op, each with the eager version that specifies it."""

from typing import Literal

Impl = Literal["eager", "fused", "auto"]
"""Which version of an operation runs; `flopbench.kernels.dispatch` has the rule. Stands where torch is not
imported, for suite files name it too."""
