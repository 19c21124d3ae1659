"""Counting: MACs, elementwise operations, bytes and parameters, three ways.

Words: 1 multiply-accumulate is 1 MAC is 2 FLOPs. MACs are those of matrix products and convolutions;
elementwise operations, bytes and parameters are kept apart and never summed silently.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Needing torch, these load on first use.
_HOMES = {
    "ForwardCount": "flopbench.flops.trace",
    "count_forward": "flopbench.flops.trace",
}
__all__ = ["ForwardCount", "count_forward"]

if TYPE_CHECKING:
    from flopbench.flops.trace import ForwardCount, count_forward


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flopbench.flops' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
