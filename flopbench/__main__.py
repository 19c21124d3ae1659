"""`python -m flopbench`."""

from flopbench.cli import main

if __name__ == "__main__":
    main()
