"""What comes before each call of a single layer on a GPU: its cache is emptied, the device held up."""

from typing import Any

import torch

from flopbench.cells import Cell
from flopbench.private import hold_device

# So many times the cache is read, so that nothing else stays in it.
TIMES_THE_CACHE = 4

# Of the device's clock, about half a millisecond: longer than the host should take to dispatch a layer.
HELD_CYCLES = 1_000_000


class Flush:
    """Called, it leaves nothing of what ran before in the second-level cache, and keeps the device waiting.

    The features of one layer fit there, those of a network do not: a layer that is called again and again
    would find its input where no layer of a network finds it. The buffer is read and not written, for what
    was written has to leave the cache while the layer runs. A layer takes the device less time than its
    dispatch takes the host: it is queued while the device waits, so that its kernels follow one another as in
    a network or in a graph that is replayed.
    """

    def __init__(self, cache_bytes: int, device: torch.device) -> None:
        self.buffer = torch.zeros(TIMES_THE_CACHE * cache_bytes // 4, device=device)

    def __call__(self) -> None:
        """Read the buffer, then wait; the host goes on."""
        self.buffer.amax()
        hold_device(HELD_CYCLES)


def flush_for(cell: Cell, device: torch.device, cuda: Any = torch.cuda) -> Flush | None:
    """What has to run before each call of a cell's models, if they are single layers on a GPU."""
    if cell.device != "cuda" or not any(name.is_layer for name in cell.pair.names):
        return None
    return Flush(cuda.get_device_properties(cuda.current_device()).L2_cache_size, device)
