"""What an export wrote, and what its file was checked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flopbench.kernels import Ran
from flopbench.models.tasks import TASKS
from flopbench.report import text
from flopbench.report.shown import Shown
from flopbench.report.table import Column, Table, words


@dataclass(frozen=True)
class Checked:
    """A file in its engine, held against the network in torch.

    Attributes:
        images: what both were called with.
        difference: largest |engine − torch| of the output, over its root mean square.
        symmetry: largest error of what the network promises under each generator of its symmetry, by name,
            in the engine, over the output's deviation.
        tolerance: of all of these, in the file's dtype.
    """

    images: str
    difference: float
    symmetry: Mapping[str, float]
    tolerance: float


@dataclass(frozen=True, repr=False)
class Exported(Shown):
    """What was written.

    Attributes:
        path: the file that is loaded.
        files: it, and what has to lie beside it.
        about: what the file says of itself, by key.
        contents: what kind of file it is.
        parameters: of the network.
        ran: what each operation of ours was exported as, and why.
        checked: None where nobody asked.
    """

    path: Path
    files: tuple[Path, ...]
    about: Mapping[str, str]
    contents: str
    parameters: int
    ran: Ran
    checked: Checked | None

    @property
    def disk_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)

    def shown(self) -> list[Table | str]:
        """The table."""
        return [self.table()]

    def table(self) -> Table:
        """What was written, what it was checked for, and what the network's operations became."""
        about, checked = self.about, self.checked
        rows = [
            ("file", " + ".join(str(file) for file in self.files)),
            ("size", f"{text.size(self.disk_bytes)}, {text.count(self.parameters)} parameters"),
            ("engine", f"{about['engine']} {about['engine_version']}"),
            ("format", self.contents),
            ("network", f"{about['name']}, weights {about['weights']}, {about['dtype']}"),
            ("input", f"{about['input']}, any batch"),
            ("licence", about.get("licence", "")),
        ]
        if checked:
            errors = (f"{text.error(error)} under a {name}" for name, error in checked.symmetry.items())
            promise = TASKS[about["task"]].promise  # pyright: ignore[reportArgumentType]
            rows += [
                ("difference from torch", f"{text.error(checked.difference)} on {checked.images}"),
                (f"error, {promise}", ", ".join(errors)),
            ]
        exported = (f"{operation} as {' and '.join(names)}" for operation, names in sorted(self.ran.items()))
        rows.append(("operations", "; ".join(exported)))
        wide = Column("", "what", numeric=False, wraps=True)
        return Table.of("", (words("exported"), wide), [row for row in rows if row[1]])
