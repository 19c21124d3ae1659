import json

import numpy as np
import pytest

from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.regression.decision import Outcome
from flopbench.regression.pytest_benchmark import EXTRA
from flopbench.regression.sources import compare_sources


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
    same = _file(tmp_path / "same.json", data=data, seed=1)
    slow = _file(tmp_path / "slow.json", data=data, seconds=1.2e-3, seed=2)
    assert compare_sources(base, same).outcome is Outcome.PASS
    comparison = compare_sources(base, slow)
    assert comparison.outcome is Outcome.FAIL
    (change,) = comparison.changes
    assert change.change is not None
    assert change.change.estimate == pytest.approx(0.2, abs=0.02)


def test_between_machines_only_speed_ups(tmp_path):
    base = _file(tmp_path / "base.json", speedup=1.5)
    other = _file(tmp_path / "other.json", speedup=1.3, seconds=5e-3, cpu="EPYC", seed=1)
    comparison = compare_sources(base, other)
    assert [(change.metric, change.outcome) for change in comparison.changes] == [("speedup", Outcome.FAIL)]
    assert "cpu: Xeon → EPYC" in comparison.notes[0]
    with pytest.raises(NothingMeasuredError, match="cpu: Xeon → EPYC"):
        compare_sources(_file(tmp_path / "a.json"), _file(tmp_path / "b.json", cpu="EPYC"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has no list of benchmarks"),
        ('{"benchmarks": []}', "no benchmark in common"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    base = _file(tmp_path / "base.json")
    (tmp_path / "new.json").write_text(content)
    with pytest.raises(FlopbenchError, match=message):
        compare_sources(base, tmp_path / "new.json")


def test_kinds_are_not_mixed(tmp_path):
    with pytest.raises(FlopbenchError, match="different kinds"):
        compare_sources(_file(tmp_path / "base.json"), tmp_path)
    with pytest.raises(FlopbenchError, match="--metric applies to runs"):
        compare_sources(_file(tmp_path / "a.json"), _file(tmp_path / "b.json"), metrics=["speedup"])
