"""How much of the FLOPs that symmetry saves becomes time.

The public names are loaded on first use, so that `import flopbench` (and with it `flopbench --help`)
does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "create_model": "flopbench.models",
    "list_models": "flopbench.models",
    "load_released_checkpoint": "flopbench.models",
    "assert_equivariant": "flopbench.testing",
    "Inputs": "flopbench.inputs",
    "Interrupted": "flopbench.errors",
    "Result": "flopbench.report.result",
    "benchmark": "flopbench.api",
    "compare_runs": "flopbench.api",
    "count_flops": "flopbench.api",
    "evaluate": "flopbench.training.evaluate",
    "export": "flopbench.training.export",
    "load": "flopbench.api",
    "load_run": "flopbench.api",
    "profile": "flopbench.profiling.given",
    "race": "flopbench.training.race",
    "run_suite": "flopbench.api",
    "train": "flopbench.training.train",
}
__all__ = [
    "Inputs",
    "Interrupted",
    "Result",
    "__version__",
    "assert_equivariant",
    "benchmark",
    "compare_runs",
    "count_flops",
    "create_model",
    "evaluate",
    "export",
    "list_models",
    "load",
    "load_released_checkpoint",
    "load_run",
    "profile",
    "race",
    "run_suite",
    "train",
]

if TYPE_CHECKING:
    from flopbench.api import benchmark, compare_runs, count_flops, load, load_run, run_suite
    from flopbench.errors import Interrupted
    from flopbench.inputs import Inputs
    from flopbench.models import create_model, list_models, load_released_checkpoint
    from flopbench.profiling.given import profile
    from flopbench.report.result import Result
    from flopbench.testing import assert_equivariant
    from flopbench.training.evaluate import evaluate
    from flopbench.training.export import export
    from flopbench.training.race import race
    from flopbench.training.train import train


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flopbench' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
