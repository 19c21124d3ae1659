"""Operations of the equivariant layers, one file an op, each with the eager version that specifies it."""

from typing import Literal, get_args

Name = Literal["torch", "unfused", "inductor", "cpp", "triton"]
"""What an operation can run as: torch's own operator; attention as two products with the scores in memory;
the eager text compiled by inductor; C++; Triton."""

Impl = Literal["auto", "fused", "eager", "inductor", "cpp", "triton"]
"""What may be asked for: `flopbench.kernels.dispatch.choose` has the rule. Stands where torch is not
imported, for suite files name it too."""

NAMES: tuple[Name, ...] = get_args(Name)
