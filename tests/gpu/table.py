"""Puts what a GPU measured into the table that `auto` goes by (`flopbench.kernels.measured`).

python -m tests.gpu.table out/operations.jsonl
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from flopbench.kernels.measured import TABLE, Row, read_rows
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


def main(paths: list[str], table: Path = TABLE) -> None:
    """Read measurements, each a file of a row per line, into the table."""
    new = [Row(**json.loads(line)) for path in paths for line in Path(path).read_text().splitlines()]
    if any(row.card == "cpu" for row in new):
        sys.exit("these are times of Triton's interpreter, which say nothing of a GPU")
    rows = merged(read_rows(table), new)
    write_atomically(table, as_text(rows))
    print(f"{len(rows)} rows, {len(new)} of them new: {table}")


if __name__ == "__main__":
    main(sys.argv[1:])
