"""The counts of published networks in `flopbench/data`, by the names that the networks have here."""

import csv
from importlib.resources import files

from flopbench.models import SPECS, label_of


def published_counts(file: str) -> dict[str, dict[str, str]]:
    """Name of a network → its row of a file of counts."""
    names = {label_of(name): name for spec in SPECS.values() for name in spec.names}
    rows = csv.DictReader((files("flopbench") / "data" / file).read_text("utf-8").splitlines())
    return {names[_label(row)]: row for row in rows}


def _label(row: dict[str, str]) -> str:
    family = row["family"].replace("isotropic", "iso")
    return row["version"].replace("X", f"{family}-{row['size']}")
