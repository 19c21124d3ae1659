"""What torch.compile and engines need to be on the machine, told before anything starts. Imports no torch."""

from collections import Counter
from collections.abc import Sequence

from flopbench.cells import Cell
from flopbench.engines.needs import missing_engine
from flopbench.kernels.compilers import missing_triton
from flopbench.modes import COMPILING, ENGINES, Mode
from flopbench.results import Environment

_COMPILED = COMPILING | frozenset[Mode](("aot-inductor",))
"""Modes in which inductor compiles."""


def unmet(cell: Cell, *, no_cpp: str | None) -> str | None:
    """Why a cell cannot be compiled or exported, with the remedies; None where it can, or is not to be.

    Args:
        cell: to be measured.
        no_cpp: the C++ compilers that inductor looks for, where there is none of them.
    """
    if cell.mode in ENGINES and (lacking := missing_engine(cell.mode, cell.device, cell.dtype)):
        return lacking
    what = "AOTInductor" if cell.mode == "aot-inductor" else "torch.compile"
    if cell.device == "cuda" and cell.mode in _COMPILED and (lacking := missing_triton()):
        return f"{what} needs Triton on a GPU, and {lacking}; or use --mode eager"
    if no_cpp and needs_cpp(cell):
        return f"{what} needs a C++ compiler ({no_cpp}): install one, or --mode eager"
    return None


def needs_cpp(cell: Cell) -> bool:
    """Whether C++ is compiled for a cell."""
    return cell.mode == "aot-inductor" or (cell.device == "cpu" and cell.mode in _COMPILED)


def warnings(cells: Sequence[Cell], environment: Environment) -> list[str]:
    """A line per thing that is missing, with how many of a run's cells will fail for it."""
    no_cpp = None if environment.compiler else "g++ or clang++"
    reasons = Counter(reason for cell in cells if (reason := unmet(cell, no_cpp=no_cpp)))
    return [f"{count} of {len(cells)} cells will fail: {reason}" for reason, count in reasons.items()]
