"""Two commits on one machine: old and new in fresh processes, alternating A B B A.

The only honest test of a change on a noisy runner: whatever the machine does, it does to both. The old
commit is written into a folder of its own; installed dependencies are shared and the package alone
differs, for `PYTHONPATH` puts that folder first.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flopbench.errors import ExitCode, FlopbenchError, NothingMeasuredError
from flopbench.regression.baseline import commit_of, git
from flopbench.regression.compare import by_cell, compare_records
from flopbench.regression.decision import Comparison, Outcome
from flopbench.regression.exact import ExactBaseline, compare_exact
from flopbench.regression.gate import Request, Say
from flopbench.results import CellRecord, Run

ORDER = "ABBA"
_COMMAND = ("-c", "from flopbench.cli import main; main()")


def gate_against(
    reference: str, request: Request, suite_file: Path, *, say: Say = lambda line: None
) -> Comparison:
    """Compare the working tree with a commit, measuring both now; what is ambiguous gets as much again.

    Args:
        reference: `git:REF`, or any name of a commit.
        request: what to gate.
        suite_file: the suite's file in the working tree; both sides measure it.
        say: told what is being done.

    Raises:
        FlopbenchError: not a git checkout, no such commit, or one side could not measure; its own words
            are passed on.
    """
    reference = reference.removeprefix("git:")
    suite = str(suite_file.resolve())
    here = Path(git("rev-parse", "--show-toplevel", what="--against needs a git checkout"))
    with checkout(reference) as there, tempfile.TemporaryDirectory(prefix="flopbench-") as name:
        folder, trees = Path(name), {"A": there, "B": here}
        comparison = Comparison(base=reference, new="working tree")
        effects = request.suite.minimum_effect
        if request.tier.exact:
            exact = {}
            for side, tree in trees.items():
                say(f"exact figures of {_SIDES[side]}")
                file = folder / f"{side}.json"
                written = ("--baseline", str(file), "--write-baseline")
                _flopbench(tree, "gate", request, suite, "--tier", "exact", *written)
                exact[side] = ExactBaseline.read(file)
            comparison += compare_exact(exact["A"], exact["B"], effects)
        if request.tier.statistical:
            records: dict[str, list[CellRecord]] = {"A": [], "B": []}

            def measure(attempt: int) -> Comparison:
                for turn in range(2 * request.processes):
                    side = ORDER[turn % len(ORDER)]
                    say(f"measuring {_SIDES[side]}, process {turn // 2 + 1} of {request.processes}")
                    target = folder / f"{attempt}-{turn}"
                    folders = ("--results", str(target), "--reports", str(target / "reports"))
                    _flopbench(trees[side], "run", request, suite, *folders, "--format", "json")
                    records[side] += Run.open(next(target.glob("*/run.json")).parent).records()
                return compare_records(by_cell(records["A"]), by_cell(records["B"]), effects, paired=True)

            timed = measure(0)
            if timed.of(Outcome.AMBIGUOUS) and not timed.of(Outcome.FAIL):
                say("some changes are ambiguous: measuring once more")
                timed = measure(1)
            comparison += timed
        return comparison


_SIDES = {"A": "the commit", "B": "the working tree"}


@contextmanager
def checkout(reference: str) -> Iterator[Path]:
    """The files of a commit in a folder of their own, gone afterwards.

    No worktree of git's: the repository knows nothing of it, so nothing is left there when this is killed.

    Raises:
        FlopbenchError: no such commit.
    """
    commit, what = commit_of(reference), f"cannot check out {reference}"
    root = git("rev-parse", "--show-toplevel", what="--against needs a git checkout")
    with tempfile.TemporaryDirectory(prefix="flopbench-") as folder:
        tree, index = Path(folder) / "tree", {"GIT_INDEX_FILE": f"{folder}/index"}
        tree.mkdir()
        # In a subfolder git would write that folder alone.
        git("-C", root, "read-tree", commit, what=what, environment=index)
        git("-C", root, "checkout-index", "--all", f"--prefix={tree}/", what=what, environment=index)
        yield tree


def _flopbench(tree: Path, command: str, request: Request, suite: str, *arguments: str) -> None:
    """Run a command of the `flopbench` of a tree with this interpreter, on what is to be gated."""
    device = [] if request.device is None else ["--device", request.device]
    variant = [f"--{request.variant}"] if request.variant else []
    sources = [str(path) for path in (tree / "src", tree) if path.is_dir()]
    path = os.pathsep.join([*sources, *filter(None, [os.environ.get("PYTHONPATH")])])
    # What the inner command says to a CI system is not the verdict.
    quiet = {"GITHUB_ACTIONS": "", "GITHUB_STEP_SUMMARY": ""}
    done = subprocess.run(
        [sys.executable, *_COMMAND, command, "--suite", suite, *arguments, *device, *variant],
        env={**os.environ, **quiet, "PYTHONPATH": path},
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        kind = NothingMeasuredError if done.returncode == ExitCode.NOTHING_MEASURED else FlopbenchError
        raise kind(f"{tree.name}: flopbench {command} failed: {lines[-1].removeprefix('flopbench: ')}")
