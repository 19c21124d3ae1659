"""The console that commands print to."""

import os
import sys
from typing import Any

# Wide enough for every column of the widest table.
FILE_WIDTH = 200


def make_console(*, stderr: bool = False, **options: Any) -> Any:
    """A rich console. A file or pipe has no width: it gets one that leaves tables whole, or COLUMNS."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else FILE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, **options)
