"""What was measured before, opened from its folders, whatever it is."""

from collections.abc import Callable, Sequence
from pathlib import Path

from flopbench.errors import FlopbenchError
from flopbench.report import text
from flopbench.report.reported import Reported


def _runs(folders: Sequence[Path]) -> Reported:
    from flopbench.report.result import Result
    from flopbench.results import Run

    return Result([Run.open(folder) for folder in folders])


def _races(folders: Sequence[Path]) -> Reported:
    from flopbench.report.races import RaceResult

    return RaceResult.open(*folders)


def _evaluations(folders: Sequence[Path]) -> Reported:
    from flopbench.report.evaluations import Evaluations

    return Evaluations.open(*folders)


def _trainings(folders: Sequence[Path]) -> Reported:
    from flopbench.report.trainings import Trainings

    return Trainings.open(*folders)


KINDS: dict[str, tuple[str, Callable[[Sequence[Path]], Reported]]] = {
    "run.json": ("a run", _runs),
    "races.json": ("a race", _races),
    "evaluation.json": ("an evaluation", _evaluations),
    "training.json": ("a training", _trainings),
}
"""By the file that tells a folder's kind: what it holds, in words, and what opens several of them."""


def opened(*paths: str | Path) -> Reported:
    """What is in folders, or in the folders that they hold: all of one kind, side by side.

    Raises:
        FlopbenchError: a folder holds nothing that was measured, or two hold things of different kinds, or
            of the same id.
    """
    found = [(folder, kind) for path in paths for folder, kind in _found(Path(path))]
    kinds = dict.fromkeys(kind for _, kind in found)
    if len(kinds) > 1:
        firsts = (next(folder for folder, own in found if own == kind) for kind in kinds)
        named = [f"{folder} is {KINDS[kind][0]}" for folder, kind in zip(firsts, kinds, strict=True)]
        raise FlopbenchError(f"a report is of one kind, but {text.joined(named)}: give one kind at a time")
    if not found:
        raise FlopbenchError("name at least one folder of a run, a race, an evaluation or a training")
    (kind,) = kinds
    return KINDS[kind][1]([folder for folder, _ in found])


def _found(path: Path) -> list[tuple[Path, str]]:
    """A folder with the file that tells its kind, or those that it holds."""
    for folders in ([path], sorted(path.iterdir()) if path.is_dir() else []):
        found = [(folder, file) for folder in folders for file in KINDS if (folder / file).is_file()]
        if found:
            return found
    raise FlopbenchError(f"{path} holds nothing that was measured: it has no {text.joined([*KINDS], 'or')}")
