"""The networks of the paper, each architecture written once for every symmetry."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flopbench.models.catalog import SPECS, Spec, label_of, parse_name

if TYPE_CHECKING:
    from flopbench.models.checkpoints import load_released_checkpoint
    from flopbench.models.factory import create_model

__all__ = [
    "SPECS",
    "Spec",
    "create_model",
    "label_of",
    "list_models",
    "load_released_checkpoint",
    "parse_name",
]

# Needing torch, these load on first use.
_HOMES = {
    "create_model": "flopbench.models.factory",
    "load_released_checkpoint": "flopbench.models.checkpoints",
}


def list_models() -> list[str]:
    """Every name of the catalogue with every version that it has, e.g. `vit_b16`, `vit_b16.flop`."""
    return [name for spec in SPECS.values() for name in spec.names]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flopbench.models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
