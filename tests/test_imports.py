"""Importing flopbench does nothing but import it, and its modules import one another in one direction."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Every module in a process of its own, for this one has used them. Triton is not in every build of torch, and
# not every engine is installed everywhere.
SCRIPT = """
import importlib, os, pkgutil, warnings
warnings.simplefilter("ignore")
import torch, torch.compiler.config, torch._dynamo.config, torch._functorch.config, torch._inductor.config
import flopbench

def settings():
    modules = torch.compiler.config, torch._dynamo.config, torch._functorch.config, torch._inductor.config
    return {
        **{module.__name__: module.get_config_copy() for module in modules},
        "precision": torch.get_float32_matmul_precision(),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "random": torch.initial_seed(),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
    }

torch.manual_seed(0)
before, imported = settings(), 0
for module in pkgutil.walk_packages(flopbench.__path__, "flopbench.", onerror=lambda name: None):
    if module.name.rpartition(".")[2] == "__main__":
        continue
    try:
        importlib.import_module(module.name)
        imported += 1
    except ImportError as error:
        missing = error.name.partition(".")[0]
        engines = "triton", "tensorrt", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino"
        assert missing in engines, (module.name, error)
after = settings()
print(imported, [name for name in before if before[name] != after[name]])
"""


def test_changes_no_setting():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported, changed = done.stdout.split(maxsplit=1)
    assert int(imported) > 80
    assert changed.strip() == "[]"


# A module imports those of its own line and of the lines above. What a name begins with decides, the longest.
ROOMS = """
    cost errors private ranks structures results.percentiles
    symmetries.registry
    kernels frozen toml models.catalog models.tasks
    modes pairs cells axis_values suites recipes
    symmetries models
    results timing.statistics
    report
    testing.invariance inputs given loss
    flops
    engines
    timing
    runner
    profiling regression training
    testing
    api __init__
    cli __main__
"""
PACKAGE = Path(__file__).parents[1] / "flopbench"
LINES = {room: line for line, rooms in enumerate(ROOMS.split("\n")) for room in rooms.split()}


def line_of(module: str) -> int:
    while module not in LINES:
        module, dot, _ = module.rpartition(".")
        assert dot, f"{module or 'a new module'} has no line in ROOMS"
    return LINES[module]


def imported_by(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flopbench."):
            yield from (f"{node.module}.{alias.name}".removeprefix("flopbench.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "flopbench":
            yield from (alias.name for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from (name.removeprefix("flopbench.") for name in names if name.startswith("flopbench."))


def upward(name: str, source: str) -> list[str]:
    """What a module imports from below its line."""
    return [f"{name} imports {other}" for other in imported_by(source) if line_of(other) > line_of(name)]


def test_rooms_import_in_one_direction():
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        wrong += upward(name.removesuffix(".__init__") if "." in name else name, file.read_text())
    assert not wrong


def test_an_import_against_the_order_is_found():
    assert upward("flops.dispatch", "def f():\n    from flopbench.timing.clock import CLOCKS\n") == [
        "flops.dispatch imports timing.clock.CLOCKS"
    ]
    assert upward("inputs", "from flopbench import api") == ["inputs imports api"]
    assert not upward("timing.bench", "import flopbench.flops.meta")
