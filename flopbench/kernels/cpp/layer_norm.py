"""The layer norm of a feature's parts and the residual sum before it in C++, in one pass over each row.

Inductor takes a loop for each part and each of its sums, and lets the threads wait for one another after
each: the more parts there are, and the narrower, the more of the time goes into that.
"""

import torch
from torch import Tensor

from flopbench.kernels.cpp import load

torch.library.define(
    "flopbench::layer_norm_rows",
    "(Tensor[] x, Tensor[] branch, Tensor[] gamma, Tensor[] affine, int[] dimensions, float eps) -> Tensor[]",
)


def layer_norm_rows(
    x: list[Tensor],
    branch: list[Tensor],
    gammas: list[Tensor],
    affine: list[Tensor],
    dimensions: tuple[int, ...],
    eps: float,
) -> list[Tensor]:
    """See `flopbench.kernels.layer_norm`: with a branch its sums and their norms, else the norms of `x`.

    It has no gradient.

    Args:
        x: up to 8 parts `[..., C_p]` of one leading shape, fp32 or fp64.
        branch: as many of the same shapes, or none.
        gammas: `[C_p]` of each irrep, or none, which stand for 1.
        affine: the gain `[C_p]` of each irrep, then the shift of the first part.
        dimensions: of each irrep.
        eps: ε.

    Returns:
        All sums if there is a branch, and all norms.
    """
    load()
    return torch.ops.flopbench.layer_norm_rows.default(x, branch, gammas, affine, dimensions, eps)


@torch.library.register_fake("flopbench::layer_norm_rows")
def _(x, branch, gamma, affine, dimensions, eps):  # noqa: ANN001
    return [part.new_empty(part.shape) for part in (*branch, *x)]
