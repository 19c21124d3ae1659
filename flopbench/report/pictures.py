"""Every picture of a report."""

from collections.abc import Sequence
from dataclasses import dataclass

from flopbench.report.cells import Rows
from flopbench.results import Run


@dataclass(frozen=True)
class Picture:
    """One picture, drawn: `name` is its files' stem."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: str


def draw_all(runs: Sequence[Run], rows: Rows) -> tuple[list[Picture], list[str]]:
    """The pictures that the runs have data for, and a sentence for each that they have none for."""
    return [], []
