"""A GPU's cache, emptied before every call of a single layer."""

from typing import Any

import torch

from flopbench.cells import Cell

# So many times the cache is read: nothing else stays in it, and the host dispatches the layer meanwhile.
TIMES_THE_CACHE = 4


class Flush:
    """Called, it leaves nothing of what ran before in the second-level cache.

    The features of one layer fit there, those of a network do not: a layer that is called again and again
    would find its input where no layer of a network finds it. The buffer is read and not written, for what
    was written has to leave the cache while the layer runs.
    """

    def __init__(self, cache_bytes: int, device: torch.device) -> None:
        self.buffer = torch.zeros(TIMES_THE_CACHE * cache_bytes // 4, device=device)

    def __call__(self) -> None:
        """Read the buffer."""
        self.buffer.amax()


def flush_for(cell: Cell, device: torch.device, cuda: Any = torch.cuda) -> Flush | None:
    """What has to run before each call of a cell's models, if they are single layers on a GPU."""
    if cell.device != "cuda" or not any(name.is_layer for name in cell.pair.names):
        return None
    return Flush(cuda.get_device_properties(cuda.current_device()).L2_cache_size, device)
