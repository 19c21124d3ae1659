import json

import pytest

pytest_plugins = ["pytester"]

OPTIONS = ("-p", "no:cacheprovider", "--benchmark-max-time=0.05", "-W", "error")

TESTS = """
import time
import pytest
import torch

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

def test_not_finite(flopbench):
    flopbench.compare(fast, broken, x)

def test_another_shape(flopbench):
    flopbench.compare(fast, lambda x: x[:2], x)
"""


@pytest.fixture
def run(pytester):
    pytester.makepyfile(TESTS)
    return lambda *options: pytester.runpytest(*OPTIONS, *options)


def test_asserts_the_speed_up_and_the_outputs(run):
    result = run()
    result.assert_outcomes(passed=3, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: speed-up 0.*, at least 1.2× asked for: fail",
            "*AssertionError: the candidate's output (3,) is not finite",
            "*AssertionError: the baseline gives 3 numbers, the candidate 2: not the same task",
        ]
    )


def test_disabled_benchmarks_check_outputs_alone(run):
    result = run("--benchmark-disable", "-rP")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(["outcome pass None"])


def test_saved_files_hold_the_speed_up_and_compare(run, pytester):
    for _ in range(2):
        run("-k", "fast_enough", "--benchmark-save=it", "--benchmark-save-data").assert_outcomes(passed=1)
    base, new = sorted(pytester.path.glob(".benchmarks/*/*_it.json"))
    (entry,) = json.loads(base.read_text())["benchmarks"]
    extra = entry["extra_info"]["flopbench"]
    assert extra["low"] <= extra["speedup"] <= extra["high"]
    assert extra["outcome"] == "pass"
    assert len(extra["round_speedups"]) == entry["stats"]["rounds"]

    from flopbench.regression.sources import compare_sources

    comparison = compare_sources(base, new)
    assert {change.metric for change in comparison.changes} == {"seconds", "speedup"}
    run("-k", "fast_enough", "--benchmark-compare").stdout.fnmatch_lines(["*test_fast_enough (0002_it)*"])


def test_without_pytest_benchmark_pytest_says_what_is_missing(run, pytester):
    result = pytester.runpytest("-k", "no_demand", "-p", "no:benchmark")
    result.stdout.fnmatch_lines(["*fixture 'benchmark' not found"])


def test_benchmark_only_keeps_it(run):
    run("-k", "no_demand", "--benchmark-only").assert_outcomes(passed=1)
