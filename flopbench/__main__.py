"""The command `flopbench`, and `python -m flopbench`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command; Ctrl-C is one line also while commands are still being imported."""
    try:
        from flopbench.cli import main as run
    except KeyboardInterrupt:
        print("flopbench: interrupted", file=sys.stderr)
        sys.exit(130)  # ExitCode.INTERRUPTED, which is not imported yet
    run()


if __name__ == "__main__":
    main()
