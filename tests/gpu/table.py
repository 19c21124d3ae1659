"""Puts what a GPU measured into the table that `auto` goes by (`flopbench.kernels.measured`).

python -m tests.gpu.table out/operations.jsonl
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from flopbench.errors import FlopbenchError
from flopbench.kernels.measured import TABLE, Row, parse_rows, read_rows
from flopbench.results.files import write_atomically


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """All rows, of two of the same thing the new one; in one order whatever theirs was."""
    rows = {_of(row): row for row in (*old, *new)}
    return [rows[key] for key in sorted(rows)]


def _of(row: Row) -> tuple[str, str, int, str, bool, bool, int]:
    return row.card, row.operation, row.parts, row.dtype, row.compiled, row.gradients, row.elements


def as_text(rows: Iterable[Row]) -> str:
    """A row per line, so that versions of the table can be compared."""
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def measurements(path: Path) -> Iterator[Row]:
    """Those of a file of a row per line.

    Raises:
        FlopbenchError: it is none, with the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise FlopbenchError(
            f"{path} cannot be read: {getattr(error, 'strerror', 'it is no text')}"
        ) from None
    for number, line in enumerate(lines, 1):
        yield from parse_rows(
            f"[{line}]", f"{path}, line {number}, is no row of `python -m tests.gpu.operations`"
        )


def main(paths: list[str], table: Path = TABLE) -> None:
    """Read measurements, each a file of a row per line, into the table."""
    if not paths:
        sys.exit("name what `python -m tests.gpu.operations` wrote: operations.jsonl")
    try:
        new = [row for path in paths for row in measurements(Path(path))]
        old = read_rows(table)
    except FlopbenchError as error:
        sys.exit(str(error))
    if any(row.card == "cpu" for row in new):
        sys.exit("these are times of Triton's interpreter, which say nothing of a GPU")
    rows = merged(old, new)
    write_atomically(table, as_text(rows))
    print(f"{len(rows)} rows, {len(new)} of them new: {table}")


if __name__ == "__main__":
    main(sys.argv[1:])
