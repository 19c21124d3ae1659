# %% [markdown]
# # A regression test in pytest
#
# flopbench is a plugin of pytest: a test that takes `flopbench` compares two callables, timed in turn and
# checked as in every run, and fails where the speed-up is shown to be smaller than what it asks for. This
# is `test_block.py`:

# %% test
from pathlib import Path

source = Path("test_block.py").read_text(encoding="utf-8")
print(source)

# %% [markdown]
# For how many seconds the two are sampled, `--benchmark-max-time` says. The table is pytest-benchmark's:
# its `--benchmark-save` and `--benchmark-compare` work, as does `flopbench compare` on what they save.

# %% run
import shlex
import subprocess
import sys
import tempfile

OPTIONS = "-vv -rf --tb=no --color=no --no-header -p no:cacheprovider --benchmark-columns=rounds"


def pytest(folder: str) -> str:
    """What `pytest test_block.py` prints there."""
    command = [sys.executable, "-m", "pytest", "test_block.py", *shlex.split(OPTIONS)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


print(pytest("."))

# %% [markdown]
# Then somebody loses what made it fast:

# %% regression
with tempfile.TemporaryDirectory() as folder:
    slow = source.replace("self.layers[:1]", "self.layers")
    (Path(folder) / "test_block.py").write_text(slow, encoding="utf-8")
    printed = pytest(folder)
print(printed)

# %% [markdown]
# What was not established is no pass: where the interval holds 1.2, or benchmarks are disabled, as they are
# under pytest-xdist, the test is skipped. `flopbench_on_ambiguous = fail`, as in the `pytest.ini` here,
# makes it fail.
