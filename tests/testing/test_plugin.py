import json
from itertools import cycle
from typing import Any

import pytest

from flopbench.timing import bench
from flopbench.timing.clock import CudaClock, Timed
from flopbench.timing.device_state import CudaWatch
from tests.timing.test_clock_and_state import FakeCuda, FakeNvml

pytest_plugins = ["pytester"]

OPTIONS = ("-p", "no:cacheprovider", "--benchmark-max-time=0.05", "-W", "error")
# No time but for the least number of rounds, which is six.
AT_ONCE = ("--benchmark-max-time=1e-6",)

TESTS = """
import time
import pytest
import torch

from flopbench.inputs import Inputs
from flopbench.testing.plugin import NotEstablishedWarning

x = torch.zeros(3)

def slow(x):
    time.sleep(0.004)
    return x + 1

def fast(x):
    time.sleep(0.001)
    return x + 1

def broken(x):
    return x / 0 * 0

def test_fast_enough(flopbench):
    result = flopbench.compare(slow, fast, x, min_speedup=1.2)
    print("outcome", result.outcome, result.speedup)

def test_too_slow(flopbench):
    flopbench.compare(fast, slow, x, min_speedup=1.2)

def test_no_demand(flopbench):
    flopbench.compare(fast, slow, x)

def test_calls_too_short_to_time_alone(flopbench):
    result = flopbench.compare(lambda x: x + 1, lambda x: x + 2, x)
    assert result.speedup is None or 0.2 < result.speedup.estimate < 5

@pytest.mark.parametrize("grad", [False, True])
def test_gradients_as_asked_for(flopbench, grad):
    seen = set()
    flopbench.compare(lambda: (seen.add(torch.is_grad_enabled()), x), lambda: x, grad=grad)
    assert seen == {grad}

def test_not_finite(flopbench):
    flopbench.compare(fast, broken, x)

def test_another_shape(flopbench):
    flopbench.compare(fast, lambda x: x[:2], x)

def test_no_tensor(flopbench):
    with pytest.warns(NotEstablishedWarning, match="cannot be checked; return tensors"):
        flopbench.compare(lambda x: 3, lambda x: None, x)

def scaled(x, factor):
    return {"scaled": x * factor, "mine": x + 1}

def test_inputs_of_any_structure(flopbench):
    flopbench.compare(scaled, scaled, inputs={"x": x + 1, "factor": 2}, same="output")

def test_inputs_by_position_and_name(flopbench):
    with pytest.warns(NotEstablishedWarning, match=r"only the baseline gives mine \\(3,\\).*not compared"):
        only = lambda x, factor: {"scaled": factor * x}
        flopbench.compare(scaled, only, Inputs(x + 1, factor=2), same="scaled")

def test_not_the_same(flopbench):
    flopbench.compare(fast, lambda x: x + 1.01, x, same="output")

def test_the_same_by_a_function(flopbench):
    flopbench.compare(fast, lambda x: x + 1.01, x, same=lambda a, b: torch.allclose(a, b, atol=0.1))

def test_the_same_within_a_tolerance(flopbench):
    flopbench.compare(fast, lambda x: x + 1.01, x, same="output", tolerance=0.1)

@pytest.mark.parametrize("options", [{}, {"min_speedup": 1.2, "on_ambiguous": "perhaps"}])
def test_told_what_to_do(flopbench, benchmark, options):
    benchmark(lambda: None)
    flopbench.compare(fast, slow, x, **options)

class TestClass:
    @pytest.mark.parametrize("more", [1, 2])
    def test_method(self, flopbench, more):
        flopbench.compare(lambda x: x + more, lambda x: x - more, x)
"""


@pytest.fixture
def pytester(pytester, monkeypatch):
    """Pytest by itself, also where this test runs in a worker: pytest-benchmark measures nothing in one."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return pytester


@pytest.fixture
def run(pytester):
    pytester.makepyfile(TESTS)
    return lambda *options: pytester.runpytest(*OPTIONS, *options)


def test_asserts_the_speed_up_and_the_outputs(run):
    result = run()
    result.assert_outcomes(passed=12, failed=6)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: speed-up 0.*, at least 1.2× asked for: fail",
            "*WrongOutputError: the candidate's output (3,) is not finite",
            "*WrongOutputError: outputs of 3 and of 2 numbers: not the same task",
            "*WrongOutputError: the candidate does not give the same as the baseline: output differs*",
            "*FlopbenchError: flopbench.compare measures once per test*pytest.mark.parametrize",
            "*FlopbenchError: on_ambiguous 'perhaps': choose one of fail, skip, warn",
        ]
    )


def test_disabled_benchmarks_check_outputs_and_establish_no_speed_up(run):
    result = run("--benchmark-disable", "-rs")
    result.assert_outcomes(passed=11, failed=5, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*at least 1.2× asked for, and nothing timed*"])


def test_the_ini_option_says_what_becomes_of_what_was_not_established(run):
    options = ("-k", "fast_enough", "--benchmark-disable", "-rP")
    run(*options, "-o", "flopbench_on_ambiguous=fail").assert_outcomes(failed=1)
    warned = run(*options, "-o", "flopbench_on_ambiguous=warn", "-W", "default")
    warned.assert_outcomes(passed=1, warnings=1)
    warned.stdout.fnmatch_lines(["*NotEstablishedWarning: speed-up of at least 1.2×*"])


def test_saved_files_hold_the_speed_up_and_compare(run, pytester):
    for _ in range(2):
        run("-k", "fast_enough", "--benchmark-save=it", "--benchmark-save-data").assert_outcomes(passed=1)
    base, new = sorted(pytester.path.glob(".benchmarks/*/*_it.json"))
    (entry,) = json.loads(base.read_text())["benchmarks"]
    extra = entry["extra_info"]["flopbench"]
    assert extra["low"] <= extra["speedup"] <= extra["high"]
    assert extra["outcome"] == "pass"
    assert len(extra["round_speedups"]) == len(extra["baseline_seconds"]) == entry["stats"]["rounds"] >= 6
    # The candidate's own times, not those of the measurement as a whole.
    assert all(seconds >= 0.001 for seconds in entry["stats"]["data"])
    for baseline, candidate, ratio in zip(
        extra["baseline_seconds"], entry["stats"]["data"], extra["round_speedups"], strict=True
    ):
        assert baseline > candidate
        assert baseline / candidate == pytest.approx(ratio, rel=0.5)

    from flopbench.regression.sources import compare_sources

    comparison = compare_sources(base, new)
    assert {change.metric for change in comparison.changes} == {"seconds", "speedup"}
    run("-k", "fast_enough", "--benchmark-compare").stdout.fnmatch_lines(["*test_fast_enough (0002_it)*"])


def test_without_pytest_benchmark_pytest_says_what_is_missing(run, pytester):
    result = pytester.runpytest("-k", "no_demand", "-p", "no:benchmark")
    result.stdout.fnmatch_lines(["*fixture 'benchmark' not found"])


def test_the_profiler_leaves_the_samples_alone(run_scripted):
    options = (*AT_ONCE, "--benchmark-cprofile=tottime")
    _, entry = run_scripted(_Scripted(2.0), "passed", "x", options=options)
    assert entry["stats"]["rounds"] == len(entry["extra_info"]["flopbench"]["round_speedups"]) == 6
    assert entry["cprofile"]


def test_benchmark_only_keeps_it(run):
    run("-k", "no_demand", "--benchmark-only").assert_outcomes(passed=1)


class _Scripted:
    """A clock by which the baseline takes so many times as long as the candidate, one after another."""

    def __init__(self, *ratios: float) -> None:
        self.ratios = cycle(ratios)
        self.wall = 0.0
        self.glance: Any = None
        self.baseline: Any = None

    def time(self, workload: Any, calls: int, lead: int = 0) -> Timed:
        # It is warmed up first.
        self.baseline = self.baseline or workload
        baseline = workload is self.baseline
        seconds = [next(self.ratios) if baseline else 1.0 for _ in range(calls)]
        self.wall += sum(seconds)
        if self.glance:
            self.glance()
        return Timed(seconds)

    def synchronise(self) -> None:
        pass

    def now(self) -> float:
        return self.wall


@pytest.fixture
def run_scripted(pytester, monkeypatch):
    """Run one comparison, with a clock, and give the entry of its benchmark."""

    def run(clock, outcome, arguments, mark="", options=()):
        monkeypatch.setattr(bench, "CLOCKS", dict.fromkeys(("cpu", "cuda"), lambda: clock))
        nvml = FakeNvml()
        nvml.reasons = 0x8
        monkeypatch.setattr(bench, "watch", lambda device: CudaWatch(nvml))
        pytester.makepyfile(f"""
            import pytest
            import torch

            class OnGpu(torch.Tensor):
                is_cuda = True

            def baseline(x):
                return x + 1

            def candidate(x):
                return x + 2

            @pytest.mark.benchmark({mark})
            def test_it(flopbench):
                x = torch.ones(3)
                print("found", flopbench.compare(baseline, candidate, {arguments}).outcome)
            """)
        result = pytester.runpytest(*OPTIONS, "--benchmark-json=it.json", "-rA", *options)
        result.assert_outcomes(**{outcome: 1})
        return result, json.loads((pytester.path / "it.json").read_text())["benchmarks"][0]

    return run


@pytest.mark.parametrize(
    ("choice", "outcome"),
    # Warnings are errors here.
    [("", "skipped"), (", on_ambiguous='fail'", "failed"), (", on_ambiguous='warn'", "failed")],
)
def test_what_is_ambiguous_is_measured_once_more_and_never_passes(run_scripted, choice, outcome):
    result, entry = run_scripted(
        _Scripted(1.1, 1.1, 1.45), outcome, f"x, min_speedup=1.2{choice}", options=AT_ONCE
    )
    assert entry["stats"]["rounds"] == 2 * 6
    assert entry["stats"]["median"] == 1.0
    result.stdout.fnmatch_lines(["*speed-up *at least 1.2× asked for: ambiguous; *throttled: *"])


def test_rounds_without_any_spread_are_no_interval(run_scripted):
    result, _ = run_scripted(_Scripted(2.0), "skipped", "x, min_speedup=1.2")
    result.stdout.fnmatch_lines(["*: ambiguous; all rounds took the same, which is no interval*"])


def test_a_clear_speed_up_is_measured_once(run_scripted):
    _, entry = run_scripted(_Scripted(2.0, 2.0, 2.001), "passed", "x, min_speedup=1.2")
    assert entry["stats"]["rounds"] == 6
    assert entry["extra_info"]["flopbench"]["speedup"] == pytest.approx(2.0, rel=1e-3)
    assert entry["extra_info"]["flopbench"]["baseline_seconds"] == pytest.approx([2.0] * 6, rel=1e-3)


@pytest.mark.parametrize(
    ("mark", "options"), [("min_rounds=9", ()), ("", ("--benchmark-min-rounds=9",))], ids=["mark", "option"]
)
def test_the_least_rounds_are_those_asked_for(run_scripted, mark, options):
    _, entry = run_scripted(_Scripted(2.0), "passed", "x", mark, options)
    assert entry["stats"]["rounds"] == 9


def test_flags_are_reported(run_scripted):
    result, entry = run_scripted(_Scripted(2.0), "passed", "x")
    (flag,) = entry["extra_info"]["flopbench"]["flags"]
    assert flag.startswith("throttled: ")
    result.stdout.fnmatch_lines(
        ["*speed-up 2.000×*", "throttled: the GPU held its clocks back*; better cooling*"]
    )


def test_inputs_on_a_gpu_are_timed_by_events(run_scripted):
    cuda = FakeCuda()
    _, entry = run_scripted(CudaClock(cuda, cuda.now), "passed", "[x, x.as_subclass(OnGpu)][1]")
    assert entry["stats"]["data"] == pytest.approx([1e-3] * entry["stats"]["rounds"])
    assert entry["stats"]["iterations"] > 1
