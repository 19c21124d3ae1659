"""What a symmetry does to each layer, and which symmetry each block of a network has.

What needs torch is loaded on first use: what there is (`registry`), one can know without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flopbench.symmetries.registry import About, register

if TYPE_CHECKING:
    from flopbench.symmetries.base import (
        Activation,
        Dropout,
        DropPath,
        Feature,
        Halves,
        Head,
        MemoryFormat,
        Quarters,
        Symmetry,
        apart,
        each,
        mirror,
        parts_of,
        together,
    )
    from flopbench.symmetries.flop import FLOP
    from flopbench.symmetries.folding import fold
    from flopbench.symmetries.plain import PLAIN
    from flopbench.symmetries.schedules import Schedule, schedule

__all__ = [
    "FLOP",
    "PLAIN",
    "About",
    "Activation",
    "DropPath",
    "Dropout",
    "Feature",
    "Halves",
    "Head",
    "MemoryFormat",
    "Quarters",
    "Schedule",
    "Symmetry",
    "apart",
    "each",
    "fold",
    "mirror",
    "parts_of",
    "register",
    "schedule",
    "together",
]

# Where a name is that is not in `base`.
_HOMES = {
    "FLOP": "flopbench.symmetries.flop",
    "PLAIN": "flopbench.symmetries.plain",
    "Schedule": "flopbench.symmetries.schedules",
    "fold": "flopbench.symmetries.folding",
    "schedule": "flopbench.symmetries.schedules",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'flopbench.symmetries' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "flopbench.symmetries.base")), name)
