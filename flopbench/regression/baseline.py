"""Baselines: a folder with `exact.json`, and the run that the statistical tier compares with.

    results/baselines/vit/exact.json    exact figures, the same on every machine
    results/baselines/vit/run.json      the run, taken on the machine that gates
    results/baselines/vit/cells.jsonl
    results/baselines/vit/calibration.json    if there is one

`git:REF` is that folder as it was at a commit, so that a change which renews its own baseline is still
held against the one before.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flopbench.errors import FlopbenchError
from flopbench.regression.exact import ExactBaseline
from flopbench.results import Run, write_atomically

EXACT_FILE = "exact.json"
RUN_FILES = ("run.json", "cells.jsonl", "calibration.json")


@dataclass(frozen=True)
class Baseline:
    """What there is to compare with; either part may be missing.

    Attributes:
        name: as it was asked for.
        exact: the exact figures.
        run: the run.
        exact_file: where the exact figures are kept; None at a commit.
        run_folder: where the run is kept; None at a commit, or where a single file was named.
    """

    name: str
    exact: ExactBaseline | None
    run: Run | None = None
    exact_file: Path | None = None
    run_folder: Path | None = None

    @property
    def at_commit(self) -> bool:
        """Whether it lies in git's history, where nothing can be written."""
        return self.exact_file is None

    def write_exact(self, exact: ExactBaseline) -> Path:
        """Write the exact figures over what is there, and return the file."""
        assert self.exact_file is not None
        exact.write(self.exact_file)
        return self.exact_file

    def write_run(self, run: Run) -> Path:
        """Copy a run over what is there, and return the folder."""
        assert self.run_folder is not None
        for name in RUN_FILES:
            if (run.path / name).is_file():
                write_atomically(self.run_folder / name, (run.path / name).read_bytes())
        return self.run_folder


@contextmanager
def open_baseline(where: str) -> Iterator[Baseline]:
    """The baseline at `where`: a folder, an `exact.json` file, or `git:REF:PATH`. It need not exist.

    Raises:
        FlopbenchError: a file in it is damaged, or git does not know the commit.
    """
    if not where.startswith("git:"):
        path = Path(where)
        if path.is_file() or path.suffix == ".json":
            yield Baseline(where, _exact(path), exact_file=path)
        else:
            yield Baseline(where, *_parts(path), exact_file=path / EXACT_FILE, run_folder=path)
        return
    _, ref, path = where.split(":", 2)
    commit = commit_of(ref)
    with tempfile.TemporaryDirectory(prefix="flopbench-") as folder:
        for name in (EXACT_FILE, *RUN_FILES):
            found = subprocess.run(
                ["git", "show", f"{commit}:{Path(path).as_posix()}/{name}"], capture_output=True, check=False
            )
            if found.returncode == 0:
                (Path(folder) / name).write_bytes(found.stdout)
        yield Baseline(where, *_parts(Path(folder)))


def locate(baseline: str | None, suite: str) -> str:
    """Where a suite's baseline is: `results/baselines/SUITE` unless told, the same for `git:REF`."""
    usual = f"results/baselines/{suite}"
    if baseline is None:
        return usual
    return f"{baseline}:{usual}" if baseline.startswith("git:") and baseline.count(":") == 1 else baseline


def commit_of(reference: str) -> str:
    """The full hash of a commit: every reference that a user gives goes through here before git gets it.

    Raises:
        FlopbenchError: no such commit.
    """
    if "\0" in reference:
        raise FlopbenchError(f"no commit {reference!r}")
    # Without --end-of-options git takes a reference that starts with a dash for an option.
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
    return git(*asked, what=f"no commit {reference!r}")


def git(*arguments: str, what: str, environment: Mapping[str, str] = {}) -> str:
    """The output of a git command, run in the environment with these variables added.

    Raises:
        FlopbenchError: it failed; the message starts with `what`.
    """
    try:
        done = subprocess.run(
            ["git", *arguments], env={**os.environ, **environment}, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise FlopbenchError(f"{what}: git is not installed") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise FlopbenchError(f"{what}{': ' + lines[-1] if lines else ''}")
    return done.stdout.decode().strip()


def _exact(file: Path) -> ExactBaseline | None:
    return ExactBaseline.read(file) if file.is_file() else None


def _parts(folder: Path) -> tuple[ExactBaseline | None, Run | None]:
    return _exact(folder / EXACT_FILE), Run.open(folder) if (folder / RUN_FILES[0]).is_file() else None
