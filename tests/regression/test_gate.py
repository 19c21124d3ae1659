import json
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import flopbench
from flopbench.cli import app
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.regression import against
from flopbench.regression import gate as gate_module
from flopbench.regression.against import gate_against
from flopbench.regression.baseline import commit_of, locate, open_baseline
from flopbench.regression.decision import Outcome
from flopbench.regression.exact import measure_exact
from flopbench.regression.gate import Request, Tier, gate
from flopbench.regression.history import parse_since
from flopbench.results import Run
from flopbench.runner.progress import LogProgress
from flopbench.suites import load_suite
from tests.regression import tiny
from tests.support.runs import H200, environment, make_run

EXACT = Request(tiny.suite(), Tier.EXACT)


@pytest.fixture(scope="module")
def measured():
    return measure_exact("tiny", tiny.profile())


@pytest.fixture
def quick_exact(monkeypatch, measured):
    """The exact tier without its work: the figures measured once."""
    monkeypatch.setattr(gate_module, "measure_exact", lambda suite, profile, on_model: measured)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # These tests run in CI as well, where it is another matter.
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


def _gate(request=EXACT, **options):
    return gate(request, LogProgress(Console(quiet=True)), **options)


def test_without_a_baseline_it_writes_one_and_passes_with_a_notice(here, quick_exact):
    first = _gate()
    assert first.outcome is Outcome.PASS
    assert any("no exact baseline at results/baselines/tiny" in note for note in first.notes)
    assert (here / "results/baselines/tiny/exact.json").is_file()
    second = _gate()
    assert second.changes
    assert second.outcome is Outcome.PASS
    assert not second.notes


def test_in_ci_nothing_passes_without_a_baseline(here, quick_exact, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(NothingMeasuredError, match="no exact baseline at results/baselines/tiny"):
        _gate()
    assert not (here / "results").exists()
    assert _gate(write=True).outcome is Outcome.PASS
    assert _gate().changes
    both = Request(tiny.suite(), Tier.ALL)
    with pytest.raises(NothingMeasuredError, match="no statistical baseline"):
        _gate(both)
    monkeypatch.setenv("CI", "false")
    assert _gate(baseline="elsewhere").outcome is Outcome.PASS


def test_a_network_that_the_baseline_has_must_not_get_lost(here, quick_exact, measured):
    extra = measured.models[0].model_copy(update={"model": "tests.regression.tiny:other"})
    measured.model_copy(update={"models": (*measured.models, extra)}).write(
        here / "results/baselines/tiny/exact.json"
    )
    comparison = _gate()
    (lost,) = comparison.of(Outcome.MISSING)
    assert lost.subject == extra.subject
    assert comparison.exit_code() == 3


def test_a_baseline_may_be_one_file(here, quick_exact):
    _gate(baseline="figures.json")
    assert (here / "figures.json").is_file()
    assert _gate(baseline="figures.json").changes
    with pytest.raises(FlopbenchError, match=r"figures\.json is one file"):
        _gate(Request(tiny.suite(), Tier.ALL), baseline="figures.json")


def test_writing_a_baseline_renews_it(here, quick_exact, measured):
    old = measured.models[1].model_copy(update={"macs": 1})
    measured.model_copy(update={"models": (old,)}).write(here / "results/baselines/tiny/exact.json")
    assert _gate().outcome is Outcome.FAIL
    _gate(write=True)
    assert _gate().outcome is Outcome.PASS


def test_a_baseline_of_another_suite_is_refused(here, quick_exact, measured):
    measured.model_copy(update={"suite": "other"}).write(here / "results/baselines/tiny/exact.json")
    with pytest.raises(FlopbenchError, match="is of suite 'other', not 'tiny'"):
        _gate()


def _git(*arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def test_a_baseline_at_a_commit_is_not_the_one_in_the_tree(here, quick_exact, measured):
    _git("init", "-q", "-b", "main")
    measured.write(here / "results/baselines/tiny/exact.json")
    _git("add", ".")
    _git("commit", "-q", "-m", "baseline")
    worse = measured.models[1].model_copy(update={"macs": 1})
    measured.model_copy(update={"models": (worse,)}).write(here / "results/baselines/tiny/exact.json")
    assert _gate().outcome is Outcome.FAIL
    assert _gate(baseline="git:main").outcome is Outcome.PASS
    assert _gate(baseline="git:HEAD:results/baselines/tiny").outcome is Outcome.PASS
    with pytest.raises(
        NothingMeasuredError, match=r"no exact baseline at git:main:elsewhere.*--write-baseline"
    ):
        _gate(baseline="git:main:elsewhere")
    with pytest.raises(FlopbenchError, match="no commit 'nowhere'"):
        _gate(baseline="git:nowhere")
    with pytest.raises(FlopbenchError, match="--write-baseline cannot write"):
        _gate(baseline="git:main", write=True)


def test_where_baselines_are():
    assert locate(None, "vit") == "results/baselines/vit"
    assert locate("git:main", "vit") == "git:main:results/baselines/vit"
    assert locate("git:main:x", "vit") == "git:main:x"
    assert locate("folder", "vit") == "folder"


@pytest.fixture
def sweeps(monkeypatch, here):
    """The statistical tier with synthetic measurements: `sweeps.slowdown` is the candidate's, now."""

    class Sweeps:
        slowdown, calls, seed = 1.0, 0, 10

        def sweep(self, run, observer, again=()):
            self.calls += 1
            self.seed += 1
            made = make_run(here / f"made-{self.seed}", slowdown=self.slowdown, seed=self.seed, **SMALL)
            wanted = {cell.id for cell, _ in again}
            offset = again[0][1] if again else 0
            for record in made.records():
                if not again or record.cell.id in wanted:
                    run.append(record.model_copy(update={"replicate": record.replicate + offset}))

    fake = Sweeps()
    monkeypatch.setattr(gate_module, "probe_environment", lambda device: environment(H200))
    monkeypatch.setattr(gate_module, "sweep", fake.sweep)
    return fake


SMALL = {
    "pairs": ("vit_s16.flop",),
    "batch_sizes": (8,),
    "passes": ("forward",),
    "modes": ("compile",),
    "replicates": 4,
}


# Run folders are named by the second.
_NUMBERS = count()


def _statistical():
    profile = {key: list(value) for key, value in SMALL.items() if key != "replicates"}
    suite = tiny.suite(
        profiles={"cuda": {**profile, "dtypes": ["bf16"], "image_sizes": [224], "num_classes": 1000}}
    )
    return Request(suite, Tier.STATISTICAL, results=Path(f"out-{next(_NUMBERS)}"))


def test_the_statistical_tier_writes_compares_and_fails(sweeps, here):
    first = _gate(_statistical())
    assert any("no statistical baseline" in note for note in first.notes)
    assert Run.open(here / "results/baselines/tiny").records()
    assert _gate(_statistical()).outcome is Outcome.PASS
    assert sweeps.calls == 2
    sweeps.slowdown = 1.2
    assert _gate(_statistical()).outcome is Outcome.FAIL


def test_what_is_ambiguous_is_measured_once_more(sweeps):
    _gate(_statistical())
    # A change of just the tolerance of the speed-up: nothing can be decided.
    sweeps.slowdown, sweeps.calls = 1.03, 0
    comparison = _gate(_statistical())
    assert sweeps.calls == 2
    assert comparison.outcome in (Outcome.AMBIGUOUS, Outcome.FAIL)


def test_a_baseline_without_a_common_cell_is_refused_before_measuring(sweeps, here):
    make_run(here / "results/baselines/tiny", **{**SMALL, "modes": ("eager",)})
    with pytest.raises(FlopbenchError, match="mode eager → compile"):
        _gate(_statistical())
    assert sweeps.calls == 0


def test_a_folder_may_hold_nothing_yet(here):
    with open_baseline("nothing/here") as baseline:
        assert (baseline.exact, baseline.run) == (None, None)


SHORT = "cell_seconds = 0.2\n"
ADDED = "        normed = self.norm1(x) if normed is None else normed\n"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A git checkout of this package with a network small enough, one commit in it."""
    root = tmp_path_factory.mktemp("checkout")
    package = Path(flopbench.__file__).parent
    shutil.copytree(package, root / "flopbench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(tiny.__file__, root / "net.py")
    (root / "tiny.toml").write_text(tiny.TOML % {"baseline": "net:flop", "candidate": "net:flop"} + SHORT)
    before = os.getcwd()
    os.chdir(root)
    try:
        _git("init", "-q", "-b", "main")
        _git("add", ".")
        _git("commit", "-q", "-m", "all is well")
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def edited(checkout, monkeypatch):
    """The ViT's block in that checkout, put back afterwards."""
    monkeypatch.chdir(checkout)
    file = checkout / "flopbench/models/vit.py"
    original = file.read_text()
    assert ADDED in original
    yield lambda text: file.write_text(original.replace(ADDED, ADDED + text))
    file.write_text(original)


def _against(checkout, tier=Tier.EXACT, say=lambda line: None):
    file = checkout / "tiny.toml"
    return gate_against("git:HEAD", Request(load_suite(str(file)), tier, "cpu", processes=3), file, say=say)


def test_a_needless_copy_of_the_activations_fails(checkout, edited):
    edited("        x = each(lambda part: part.clone(), x)\n")
    comparison = _against(checkout)
    failed = comparison.of(Outcome.FAIL)
    assert {change.metric for change in failed} == {"operators", "bytes_written"}
    assert any("+2 aten.clone" in change.note and "net:flop" in change.label for change in failed)


def test_the_other_commit_is_none_of_the_repositorys_worktrees(checkout, monkeypatch):
    """So that nothing is left in there however a gate ends."""

    def state():
        told = ["worktree list", "status --porcelain --ignored", "rev-parse HEAD"]
        return [subprocess.run(["git", *t.split()], capture_output=True, check=True).stdout for t in told]

    monkeypatch.chdir(checkout / "flopbench")
    before = state()
    with against.checkout("HEAD") as tree:
        assert state() == before
        assert (tree / "net.py").read_bytes() == (checkout / "net.py").read_bytes()
        assert (tree / "flopbench/models/vit.py").is_file()
    assert not tree.exists()


@pytest.mark.slow
def test_a_real_slow_down_against_a_commit_fails_in_times_alone(checkout, edited):
    edited("        __import__('time').sleep(0.05)\n")
    told = []
    comparison = _against(checkout, Tier.STATISTICAL, told.append)
    sides = [line.split(",")[0].removeprefix("measuring ") for line in told if line.startswith("measuring")]
    turns = ["the commit", "the working tree", "the working tree", "the commit"]
    assert sides[:6] == [*turns, *turns[:2]]
    # Both models of the pair slept, so their ratio is what it was.
    failed = comparison.of(Outcome.FAIL)
    assert [change.metric for change in failed] == ["throughput", "throughput"]
    assert all(change.change is not None and change.change.low > 1 for change in failed)


_TWENTY = """
import importlib, pathlib, sys
import flopbench.models.vit as vit
assert pathlib.Path(vit.__file__).is_relative_to(pathlib.Path.cwd()), vit.__file__
import net
from flopbench.regression.exact import compare_exact, measure_exact
from flopbench.suites import MinimumEffect, load_suite
suite = load_suite("tiny.toml")
file, base, outcomes = pathlib.Path(vit.__file__), None, []
original = file.read_text()
for turn in range(21):
    if turn:
        comment = f"    # Said differently, {turn}.\\n"
        file.write_text(original.replace("    def forward", comment + "    def forward"))
    importlib.reload(vit)
    importlib.reload(net)
    figures = measure_exact("tiny", suite.profile("cpu"))
    if base is None:
        base = figures
    else:
        outcomes.append(compare_exact(base, figures, MinimumEffect()).outcome.value)
print(outcomes)
"""


@pytest.mark.slow
def test_a_comment_passes_twenty_times_out_of_twenty(checkout, edited):
    done = subprocess.run(
        [sys.executable, "-c", _TWENTY],
        cwd=checkout,
        env={
            **os.environ,
            "PYTHONPATH": str(checkout),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(["pass"] * 20)


def test_no_such_commit(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    with pytest.raises(FlopbenchError, match="no commit 'nowhere'"):
        gate_against("git:nowhere", EXACT, checkout / "tiny.toml")


def _command(*arguments):
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


@pytest.fixture
def suite_file(here):
    (here / "tiny.toml").write_text(tiny.TOML % tiny.PAIR + SHORT)
    return "tiny.toml"


def test_the_command_tells_github_and_exits_with_the_outcome(
    here, suite_file, quick_exact, measured, monkeypatch
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "summary.md"))
    arguments = ("--suite", suite_file, "--tier", "exact")
    assert _command(*arguments).exit_code == 0
    better = measured.models[1].model_copy(update={"macs": 1})
    measured.model_copy(update={"models": (better,)}).write(here / "results/baselines/tiny/exact.json")
    failed = _command(*arguments, "--junit", "j.xml", "--out", "out")
    assert failed.exit_code == 1
    assert "::error title=" in failed.stdout
    assert "❌ fail" in (here / "summary.md").read_text()
    assert (here / "j.xml").is_file()
    assert json.loads((here / "out/comparison.json").read_text())["outcome"] == "fail"
    assert _command(*arguments, "--write-baseline").exit_code == 0
    assert _command(*arguments).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tier", "exakt"], "--tier 'exakt': choose one of exact, statistical, all"),
        (["--device", "tpu"], "--device 'tpu': choose cpu or cuda"),
        (["--against", "git:HEAD", "--baseline", "x"], "leave out --baseline"),
        (["--suite", "vti"], "unknown suite 'vti'"),
    ],
)
def test_wrong_input_is_named(here, arguments, message):
    with pytest.raises(FlopbenchError, match=message):
        CliRunner().invoke(app, ["gate", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("reference", ["--output=written", "-h", "", "nowhere", "HEAD:README.md", "a\0b"])
def test_a_reference_that_is_no_commit_never_reaches_git_as_an_option(checkout: Path, reference: str):
    before = sorted(checkout.iterdir())
    for use in (commit_of, lambda given: parse_since(f"git:{given}")):
        with pytest.raises(FlopbenchError, match="no commit"):
            use(reference)
    assert sorted(checkout.iterdir()) == before
