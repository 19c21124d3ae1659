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
        Head,
        MemoryFormat,
        Symmetry,
        apart,
        each,
        parts_of,
        together,
    )
    from flopbench.symmetries.flop import FLOP, Halves
    from flopbench.symmetries.flop_tokens import Quarters
    from flopbench.symmetries.folding import fold
    from flopbench.symmetries.generators import Generator
    from flopbench.symmetries.irreps import Group, Irrep, regular
    from flopbench.symmetries.octic import OCTIC, Octic
    from flopbench.symmetries.plain import PLAIN
    from flopbench.symmetries.schedules import Schedule, schedule

__all__ = [
    "FLOP",
    "OCTIC",
    "PLAIN",
    "About",
    "Activation",
    "DropPath",
    "Dropout",
    "Feature",
    "Generator",
    "Group",
    "Halves",
    "Head",
    "Irrep",
    "MemoryFormat",
    "Octic",
    "Quarters",
    "Schedule",
    "Symmetry",
    "apart",
    "each",
    "fold",
    "parts_of",
    "register",
    "regular",
    "schedule",
    "together",
]

# Where a name is that is not in `base`.
_HOMES = {
    "FLOP": "flopbench.symmetries.flop",
    "Generator": "flopbench.symmetries.generators",
    "Group": "flopbench.symmetries.irreps",
    "Halves": "flopbench.symmetries.flop",
    "Irrep": "flopbench.symmetries.irreps",
    "OCTIC": "flopbench.symmetries.octic",
    "Octic": "flopbench.symmetries.octic",
    "PLAIN": "flopbench.symmetries.plain",
    "Quarters": "flopbench.symmetries.flop_tokens",
    "Schedule": "flopbench.symmetries.schedules",
    "fold": "flopbench.symmetries.folding",
    "regular": "flopbench.symmetries.irreps",
    "schedule": "flopbench.symmetries.schedules",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'flopbench.symmetries' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "flopbench.symmetries.base")), name)
