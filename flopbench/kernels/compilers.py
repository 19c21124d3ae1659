"""The C compiler that Triton builds its launchers with, without which no kernel of it runs on a GPU."""

import os
import shutil
import sysconfig
from functools import cache
from pathlib import Path


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
