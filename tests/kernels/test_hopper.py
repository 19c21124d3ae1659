"""Without a GPU the kernels can still be compiled for one, in a process without the interpreter."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

ATTENTION = {
    "attention_kernel",
    "attention_query_gradient_kernel",
    "attention_key_gradient_kernel",
}


def compiled(tmp_path, *arguments: str) -> list[dict[str, Any]]:
    """What every kernel became."""
    pytest.importorskip("triton", reason="Triton is not installed: this build of torch is for the CPU")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.hopper", "--json", *arguments],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


def test_every_kernel_compiles_for_an_h100(tmp_path):
    rows = compiled(tmp_path, "--first", "--dtype", "bf16")
    assert {row["kernel"] for row in rows} == {
        "layer_norm_halves_kernel",
        "layer_norm_halves_backward_kernel",
        "mirror_gelu_kernel",
        "mirror_gelu_tokens_kernel",
        *ATTENTION,
        "linear_halves_kernel",
        "linear_gelu_kernel",
    }
    # Products in bf16 run on Hopper's own tensor-core instructions.
    products = {row["kernel"] for row in rows if row["tensor_cores"] == "wgmma"}
    assert products == {"linear_halves_kernel", "linear_gelu_kernel", *ATTENTION}


@pytest.mark.slow
def test_no_config_spills(tmp_path):
    rows = compiled(tmp_path)
    assert {row["dtype"] for row in rows} == {"bf16", "fp32"}
    assert [row for row in rows if row["spilled"]] == []
