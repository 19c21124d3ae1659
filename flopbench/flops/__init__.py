"""Counting: MACs, elementwise operations, bytes and parameters, three ways.

Words: 1 multiply-accumulate is 1 MAC is 2 FLOPs. MACs are those of matrix products and convolutions;
elementwise operations, bytes and parameters are kept apart and never summed silently.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Needing torch, these load on first use.
_HOMES = {
    "ForwardCount": "flopbench.flops.trace",
    "LayerCost": "flopbench.flops.costs",
    "build_on_meta": "flopbench.flops.meta",
    "count_forward": "flopbench.flops.trace",
    "layer_costs": "flopbench.flops.costs",
}
__all__ = ["ForwardCount", "LayerCost", "build_on_meta", "count_forward", "layer_costs"]

if TYPE_CHECKING:
    from flopbench.flops.costs import LayerCost, layer_costs
    from flopbench.flops.meta import build_on_meta
    from flopbench.flops.trace import ForwardCount, count_forward


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flopbench.flops' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
