import json

import numpy as np
import pytest

from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.regression.decision import Outcome
from flopbench.regression.output import describe, dumps
from flopbench.regression.pytest_benchmark import EXTRA, compare_files
from flopbench.regression.sources import compare_sources
from flopbench.suites import MinimumEffect


def _file(path, *, seconds=1e-3, speedup=None, data=True, name="test_a", cpu="Xeon", seed=0):
    random = np.random.default_rng(seed)
    values = sorted(seconds * np.exp(random.normal(0, 0.01, 40)))
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    stats = {"median": median, "iqr": high - low, "rounds": len(values)}
    if data:
        stats["data"] = list(random.permutation(values))
    extra = {}
    if speedup:
        rounds = speedup * np.exp(random.normal(0, 0.01, 40))
        extra = {EXTRA: {"speedup": speedup, "round_speedups": list(rounds)}}
    content = {
        "machine_info": {"cpu": {"brand_raw": cpu, "count": 2}},
        "benchmarks": [{"fullname": name, "stats": stats, "extra_info": extra}],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("data", [True, False])
def test_seconds_are_compared_with_and_without_raw_data(tmp_path, data):
    base = _file(tmp_path / "base.json", data=data)
    # What another process may do by itself is no regression, and no pass either.
    for factor, outcome in (
        (0.8, Outcome.PASS),
        (1.0, Outcome.AMBIGUOUS),
        (1.1, Outcome.AMBIGUOUS),
        (1.3, Outcome.FAIL),
    ):
        new = _file(tmp_path / "new.json", data=data, seconds=factor * 1e-3, seed=1)
        comparison = compare_sources(base, new)
        assert comparison.outcome is outcome
        (change,) = comparison.changes
        assert change.change is not None
        assert change.change.estimate == pytest.approx(factor - 1, abs=0.02)
        assert "--replicates" in comparison.notes[-1]


def _entries(path, *entries, machine=None):
    benchmarks = [{"fullname": name, "stats": stats, **more} for name, stats, more in entries]
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": benchmarks}))
    return path


def _stats(seconds=1.0, *, noise=0.01, rounds=30, **more):
    data = seconds * np.exp(np.random.default_rng(0).normal(0, noise, rounds))
    low, middle, high = np.quantile(data, [0.25, 0.5, 0.75])
    return {"median": middle, "iqr": high - low, "rounds": rounds, "data": data.tolist(), **more}


ENTRY = '{"fullname": "a", "stats": {"median": 1}}'
WHOLE = ("whole", _stats(), {})


@pytest.mark.parametrize(
    "stats",
    [
        {"median": 1.1, "iqr": 0.1, "rounds": 1},
        {"median": 1.1, "iqr": 0.0, "rounds": 30},
        {"median": 1.1, "rounds": 30},
        {"median": 1.1, "iqr": 0.1, "rounds": 1, "data": [1.1]},
        {"median": 1.1, "iqr": 0.0, "rounds": 30, "data": [1.1] * 30},
    ],
)
def test_one_round_or_no_spread_is_no_interval(tmp_path, stats):
    base = _entries(tmp_path / "base.json", ("a", {**stats, "median": 1.0}, {}))
    comparison = compare_sources(base, _entries(tmp_path / "new.json", ("a", stats, {})))
    (change,) = comparison.changes
    assert (change.outcome, change.change) == (Outcome.AMBIGUOUS, None)
    assert "have no interval" in change.note
    assert "1.10" in describe(change)


@pytest.mark.parametrize("seconds", [float("nan"), 0.0, -1.0, float("inf")])
@pytest.mark.parametrize("one_of_them", [False, True])
def test_what_is_no_time_is_missing_and_hides_nothing(tmp_path, seconds, one_of_them):
    sound = _stats(1.0)
    broken = {**sound, "data": [*sound["data"][:-1], seconds]} if one_of_them else {"median": seconds}
    base = _entries(tmp_path / "base.json", ("a", _stats(), {}), WHOLE)
    new = _entries(tmp_path / "new.json", ("a", broken, {}), ("whole", _stats(1.5), {}))
    comparison = compare_sources(base, new)
    assert {change.subject: change.outcome for change in comparison.changes} == {
        "a": Outcome.MISSING,
        "whole": Outcome.FAIL,
    }
    assert json.loads(dumps(comparison))["outcome"] == "fail"
    # Broken before, there is nothing to lose.
    back = compare_sources(new, base)
    assert [change.subject for change in back.changes] == ["whole"]
    assert back.notes[0].startswith("a not compared: before, ")


def test_lost_benchmarks_are_named_in_full(tmp_path):
    base = _entries(tmp_path / "base.json", *((f"t{n}", _stats(), {}) for n in range(12)))
    new = _entries(tmp_path / "new.json", ("t0", _stats(), {}), ("new", _stats(), {}))
    comparison = compare_sources(base, new)
    assert {change.subject for change in comparison.of(Outcome.MISSING)} == {f"t{n}" for n in range(1, 12)}
    assert comparison.exit_code() == 3
    assert "1 benchmarks measured only now: new" in comparison.notes


@pytest.mark.parametrize(
    ("entry", "machine", "extra"),
    [(None, None, None), ("text", {"cpu": None}, {"flopbench": "0.1.0"}), (1, {}, {"flopbench": {}})],
)
def test_what_is_not_needed_may_be_anything(tmp_path, entry, machine, extra):
    file = _entries(tmp_path / "a.json", ("a", _stats(), {"extra_info": extra, "x": entry}), machine=machine)
    comparison = compare_sources(file, file)
    assert [change.metric for change in comparison.changes] == ["seconds"]


def test_a_speed_up_that_got_lost_is_missing(tmp_path):
    base = _file(tmp_path / "base.json", speedup=1.5)
    comparison = compare_sources(base, _file(tmp_path / "new.json", seed=1))
    assert [change.metric for change in comparison.of(Outcome.MISSING)] == ["speedup"]


def test_a_speed_up_without_rounds_is_none(tmp_path):
    extra = {"flopbench": {"speedup": 1.5, "round_speedups": []}}
    base = _file(tmp_path / "base.json", speedup=1.5)
    name = json.loads(base.read_text())["benchmarks"][0]["fullname"]
    new = _entries(tmp_path / "new.json", (name, _stats(), {"extra_info": extra}))
    assert "speedup" in [change.metric for change in compare_sources(base, new).of(Outcome.MISSING)]


def test_a_name_with_brackets_is_itself_before_it_is_a_pattern(tmp_path):
    effects = MinimumEffect(cells={"test_a[16]": {"throughput": 0.5}})
    files = [
        _entries(tmp_path / f"{seconds}.json", ("test_a[16]", _stats(seconds), {}), ("test_b", _stats(), {}))
        for seconds in (1.0, 1.2)
    ]
    base, new = files
    first, second = compare_files(base, new, effects).changes
    assert (first.tolerance, first.outcome) == (0.5, Outcome.PASS)
    assert second.tolerance < 0.5


def test_between_machines_only_speed_ups(tmp_path):
    base = _file(tmp_path / "base.json", speedup=1.5)
    other = _file(tmp_path / "other.json", speedup=1.1, seconds=5e-3, cpu="EPYC", seed=1)
    comparison = compare_sources(base, other)
    assert [(change.metric, change.outcome) for change in comparison.changes] == [("speedup", Outcome.FAIL)]
    assert "cpu: Xeon → EPYC" in comparison.notes[0]
    with pytest.raises(NothingMeasuredError, match="cpu: Xeon → EPYC"):
        compare_sources(_file(tmp_path / "a.json"), _file(tmp_path / "b.json", cpu="EPYC"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Invalid JSON"),
        ("\xff", "Invalid JSON"),
        ("[" * 10_000, "recursion limit"),
        ('{"benchmarks": [{"x": ' + "9" * 5_000 + "}]}", "number out of range"),
        ("[]", "is not a file of pytest-benchmark"),
        ('{"benchmarks": []}', "no benchmark in common"),
        ('{"benchmarks": ["a"]}', r"benchmarks\[0\]: Input should be an object"),
        ('{"benchmarks": [{"name": "BM_Copy/1024"}]}', r"benchmarks\[0\]\.fullname: Field required"),
        ('{"benchmarks": [{"fullname": "a"}]}', r"benchmarks\[0\]\.stats: Field required"),
        ('{"benchmarks": [{"fullname": "a", "stats": null}]}', r"benchmarks\[0\]\.stats: "),
        ('{"benchmarks": [{"fullname": "a", "stats": {"median": "1.1"}}]}', r"stats\.median: "),
        (f'{{"benchmarks": [{ENTRY}, {ENTRY}]}}', "2 benchmarks called a"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    base = _file(tmp_path / "base.json")
    (tmp_path / "new.json").write_text(content, encoding="latin-1")
    with pytest.raises(FlopbenchError, match=message):
        compare_sources(base, tmp_path / "new.json")


def test_kinds_are_not_mixed(tmp_path):
    with pytest.raises(FlopbenchError, match="different kinds"):
        compare_sources(_file(tmp_path / "base.json"), tmp_path)
    with pytest.raises(FlopbenchError, match="--metric applies to runs"):
        compare_sources(_file(tmp_path / "a.json"), _file(tmp_path / "b.json"), metrics=["speedup"])
