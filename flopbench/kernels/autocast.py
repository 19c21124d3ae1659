"""What autocast does to a matrix product, for products that torch does not see as such."""

import torch
from torch import Tensor


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """`tensors` in the dtype that autocast would give a matrix product of theirs; they stay without it."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    low = torch.get_autocast_dtype(device)
    # Double precision is left as it is.
    return tuple(x if x.dtype == torch.float64 else x.to(low) for x in tensors)
