"""Importing flopbench does nothing but import it."""

import subprocess
import sys

# Every module in a process of its own, for this one has used them. Triton is not in every build of torch.
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
        assert error.name == "triton", (module.name, error)
after = settings()
print(imported, [name for name in before if before[name] != after[name]])
"""


def test_changes_no_setting():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported, changed = done.stdout.split(maxsplit=1)
    assert int(imported) > 80
    assert changed.strip() == "[]"
