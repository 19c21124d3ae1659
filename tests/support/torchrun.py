"""`tests/training/together.py` in the processes that torchrun starts."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "training" / "together.py"


def torchrun(*arguments: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Its processes, on a port that is free."""
    start = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    return subprocess.run(
        [*map(str, (*start, SCRIPT, *arguments))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
