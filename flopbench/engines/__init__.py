"""Engines that execute exported networks: AOTInductor, ONNX Runtime, OpenVINO, TensorRT; one file each.

A network goes `program_of` → `Engine.write` → a file → `Engine.load` → a session. The file loads without
flopbench. An engine's file says which of our operations' implementations it runs fastest: its idiom.

What needs torch is loaded on first use: what there is (`needs`), one can know without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flopbench.engines.needs import NEEDS, installed_engines, missing_engine

if TYPE_CHECKING:
    from flopbench.engines.base import Engine, Request, Session
    from flopbench.engines.deploying import Deployed, deploy, engine, write

__all__ = [
    "NEEDS",
    "Deployed",
    "Engine",
    "Request",
    "Session",
    "deploy",
    "engine",
    "installed_engines",
    "missing_engine",
    "write",
]

_HOMES = {
    "Deployed": "flopbench.engines.deploying",
    "Engine": "flopbench.engines.base",
    "Request": "flopbench.engines.base",
    "Session": "flopbench.engines.base",
    "deploy": "flopbench.engines.deploying",
    "engine": "flopbench.engines.deploying",
    "write": "flopbench.engines.deploying",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flopbench.engines' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
