"""Without a GPU the kernels can still be compiled for one, in a process without the interpreter."""

import json
import os
import subprocess
import sys

import pytest

PRODUCTS = {
    "attention_kernel",
    "attention_query_gradient_kernel",
    "attention_key_gradient_kernel",
    "linear_parts_kernel",
    "linear_gelu_kernel",
}
OTHERS = {
    "layer_norm_kernel",
    "layer_norm_backward_kernel",
    "gelu_kernel",
}


@pytest.mark.slow
def test_every_kernel_compiles_for_an_h100_and_no_config_spills(tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed: this build of torch is for the CPU")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.hopper", "--json"],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    for dtype in ("bf16", "fp32"):
        assert {row["kernel"] for row in rows if row["dtype"] == dtype} == PRODUCTS | OTHERS
    assert [row for row in rows if row["spilled"]] == []
    # Products in bf16 run on Hopper's own tensor-core instructions, in every config.
    with_wgmma = [(row["kernel"] in PRODUCTS, row["tensor_cores"]) for row in rows if row["dtype"] == "bf16"]
    assert set(with_wgmma) == {(True, "wgmma"), (False, "")}
