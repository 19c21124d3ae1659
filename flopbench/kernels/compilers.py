"""The C compiler that Triton builds its launchers with, without which no kernel of it runs on a GPU."""

import os
import shutil
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def missing_triton() -> str | None:
    """What keeps Triton from running on a GPU, with the remedy; None if nothing is known to."""
    if find_spec("triton") is None:
        return "Triton is not installed: pip install triton"
    lacking = missing_c_compiler()
    return None if lacking is None else f"Triton needs a C compiler: {lacking}"


@cache
def missing_c_compiler() -> str | None:
    """What Triton lacks to build a launcher, with the remedy; None if it has all."""
    if c_compiler() is None:
        asked = os.environ.get("CC")
        if asked is not None:
            return f"CC names {Path(asked).name!r}, which is not there: install it, or unset CC"
        return "neither gcc nor clang is there: install one, or name another in CC"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python.h is not there: install the headers of Python (python3-dev)"
    return None


def c_compiler() -> str | None:
    """The C compiler that Triton takes (`triton.runtime.build`): what CC names, else gcc, else clang."""
    asked = os.environ.get("CC")
    if asked is not None:
        return shutil.which(asked)
    return shutil.which("gcc") or shutil.which("clang")
