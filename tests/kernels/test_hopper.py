"""Without a GPU the kernels can still be compiled for one, in a process without the interpreter."""

import os
import subprocess
import sys

import pytest


def test_every_kernel_compiles_for_an_h100(tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed: this build of torch is for the CPU")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.hopper"],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 16
    # Products in bf16 run on Hopper's own tensor-core instructions.
    assert [line[0] for line in lines if "wgmma" in line] == ["linear_halves_kernel"] * 2
