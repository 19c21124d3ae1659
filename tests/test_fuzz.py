"""Whatever is wrong with what the commands are given: one line, no stack, and never the code of a regression.

Only commands that read and refuse are called; nothing is measured.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopbench.cli import main
from flopbench.errors import ExitCode, FlopbenchError
from flopbench.models.checkpoints import load_released_checkpoint
from tests.support.runs import make_run

# What is warned of is a line on stderr.
pytestmark = pytest.mark.filterwarnings("always")

bounded = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 10**30, 1e308, float("inf"), float("nan")])
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "\x1b[2J",
            "=1+1",
            "git:--output=written",
            "a|b\nc",
            "vit_s16.flop",
            "../x",
            "9" * 5000,
            "segmentation",
            "normals",
            "features",
            "conv",
            "linear",
            "rope",
            "learnt",
        ]
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


class Caller:
    """`flopbench` in this process, in a folder of its own."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys

    def __call__(self, *words: str | Path, codes: tuple[int, ...] = (0, 2, 3)) -> None:
        self._monkeypatch.setattr(sys, "argv", ["flopbench", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed, complained = self._capsys.readouterr()
        code = end.value.code or 0
        assert code in codes, (words, complained)
        assert "Traceback" not in complained
        assert not {"\x1b", "\x07"} & set(printed + complained)
        if code not in (ExitCode.OK, ExitCode.REGRESSION):
            lines = [line for line in complained.splitlines() if not line.startswith("flopbench: warning: ")]
            # A verdict stands on stdout, and an error never does.
            assert len(lines) == (0 if printed else 1), complained
        assert not (self.folder / "written").exists()


@pytest.fixture
def flopbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    monkeypatch.chdir(tmp_path)
    return Caller(tmp_path, monkeypatch, capsys)


def spoiled(content: Any, data: st.DataObject, change: Any = values) -> Any:
    """JSON with one value, somewhere in it, replaced, left out or added."""
    if not isinstance(content, dict | list) or not content or data.draw(st.integers(0, 4)) == 0:
        return data.draw(change)
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = data.draw(st.sampled_from(keys))
    copy = content.copy()
    match data.draw(st.sampled_from(["inside", "inside", "inside", "without", "beside"])):
        case "inside":
            copy[key] = spoiled(content[key], data, change)
        case "without":
            del copy[key]
        case _ if isinstance(copy, dict):
            copy[data.draw(texts)] = data.draw(change)
        case _:
            copy.append(data.draw(change))
    return copy


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case None:
            return '"none"'
    return json.dumps(value) if isinstance(value, str) else repr(value)


SUITE = {
    "title": "Small",
    "pairs": ["vit_ti16.flop", {"candidate": "vit_s16.flop", "baseline": "vit_s16"}],
    "defaults": {
        "cell_seconds": 1.0,
        "replicates": 2,
        "num_classes": [10],
        "tasks": ["segmentation"],
        "decoders": ["conv"],
        "positions": ["rope", "learnt"],
    },
    "profiles": {"cpu": {"batch_sizes": [1], "passes": ["forward"], "quick": {"image_sizes": ["32x48"]}}},
    "minimum_effect": {"speedup": 0.02, "cells": {"*/b1/*": {"macs": 0.1}}},
}


@bounded
@given(data=st.data())
def test_suite_files(flopbench: Caller, data: st.DataObject):
    suite = spoiled(SUITE, data)
    lines = (
        [f"{json.dumps(key)} = {toml(value)}" for key, value in suite.items()]
        if isinstance(suite, dict)
        else [toml(suite)]
    )
    (flopbench.folder / "own.toml").write_text("\n".join(lines), encoding="utf-8")
    # A suite that is right after all is refused for the shard, before anything is measured.
    flopbench("run", "--suite", "own.toml", "--device", "cpu", "--shard", "2/1", codes=(2,))


@bounded
@given(content=st.binary(max_size=60))
def test_files_of_any_bytes(flopbench: Caller, content: bytes):
    for name in ("own.toml", "run/run.json", "old.json"):
        (flopbench.folder / name).parent.mkdir(exist_ok=True)
        (flopbench.folder / name).write_bytes(content)
    flopbench("run", "--suite", "own.toml", "--shard", "2/1", codes=(2,))
    for words in (["report", "run"], ["compare", "run", "run"], ["compare", "old.json", "old.json"]):
        flopbench(*words, codes=(2, 3))
    flopbench("profile", "predict", "vit_ti16.flop", "--calibration", "old.json", codes=(2,))


OPTIONS = {
    "run": ["--suite", "--device", "--budget", "--pair", "--replicates", "--precision", "--cell-seconds",
            "--shard", "--batch-size", "--pass", "--dtype", "--image-size", "--width", "--format",
            "--threads", "--task", "--decoder", "--positions"],
    "compare": ["--metric", "--suite", "--format"],
    "history": ["--metric", "--cell", "--machine", "--since", "--min-change", "--format"],
    "report": ["--format"],
    "flops": ["--by", "--depth", "--pass", "--batch-size", "--input", "--dtype-bytes", "--convention",
              "--format", "--task", "--decoder", "--positions"],
    "gate": ["--tier", "--device", "--processes", "--against", "--baseline"],
    "submit": ["--shards", "--set", "--cluster"],
}  # fmt: skip
# What ends each command before it begins its work, whatever else is right.
END = {
    "run": ["--resume", "absent"],
    "compare": ["absent", "absent"],
    "history": ["absent"],
    "report": ["absent"],
    "flops": ["absent_model"],
    "gate": ["--suite", "absent"],
    "submit": ["--shards", "0"],
}


@bounded
@given(data=st.data())
def test_options(flopbench: Caller, data: st.DataObject):
    command = data.draw(st.sampled_from(sorted(OPTIONS)))
    chosen = data.draw(st.lists(st.sampled_from(OPTIONS[command]), max_size=3))
    given = texts.filter(lambda text: "\0" not in text and text not in ("--help", "-h"))
    words = [word for option in chosen for word in (option, data.draw(st.one_of(given, numbers.map(str))))]
    flopbench(command, *words, *END[command], codes=(2, 3))


@bounded
@given(data=st.data())
def test_run_folders(flopbench: Caller, data: st.DataObject):
    run = flopbench.folder / "run"
    if not run.exists():
        make_run(run, pairs=("vit_s16.flop",), batch_sizes=(1,))
        make_run(flopbench.folder / "whole", pairs=("vit_s16.flop",), batch_sizes=(1,))
        for name in ("run.json", "cells.jsonl"):
            (flopbench.folder / name).write_bytes((run / name).read_bytes())
    info = json.loads((flopbench.folder / "run.json").read_text())
    first, *others = (flopbench.folder / "cells.jsonl").read_text().splitlines()
    if data.draw(st.booleans()):
        info = spoiled(info, data)
    else:
        first = json.dumps(spoiled(json.loads(first), data))
    (run / "run.json").write_text(json.dumps(info))
    (run / "cells.jsonl").write_text("\n".join([first, *others]) + "\n")
    flopbench(
        "compare",
        "whole",
        "run",
        "--format",
        data.draw(st.sampled_from(["markdown", "json"])),
        codes=(0, 1, 2, 3),
    )
    flopbench("merge", "run", "whole", "--out", "merged", codes=(2, 3))


BENCHMARKS = {
    "machine_info": {},
    "benchmarks": [
        {
            "fullname": "tests/x.py::test_or[a|b]",
            "extra_info": {},
            "stats": {"median": 1.0, "iqr": 0.01, "rounds": 9, "data": [1.0, 1.01, 0.99] * 3},
        }
    ],
}


@bounded
@given(data=st.data())
def test_files_of_pytest_benchmark(flopbench: Caller, data: st.DataObject):
    (flopbench.folder / "old.json").write_text(json.dumps(BENCHMARKS))
    (flopbench.folder / "new.json").write_text(json.dumps(spoiled(BENCHMARKS, data)))
    # What the file says may be slower, or lack a benchmark: that is a regression.
    form = data.draw(st.sampled_from(["markdown", "json", "table"]))
    flopbench("compare", "old.json", "new.json", "--format", form, codes=(0, 1, 2, 3))


@bounded
@given(content=values)
def test_calibrations_and_baselines(flopbench: Caller, content: Any):
    (flopbench.folder / "exact.json").write_text(json.dumps(content))
    flopbench("profile", "predict", "vit_ti16.flop", "--calibration", "exact.json", codes=(2,))


@bounded
@given(data=st.data())
def test_checkpoints(tmp_path: Path, data: st.DataObject):
    tensors = st.sampled_from(
        [
            torch.zeros(0),
            torch.zeros(2, 3),
            torch.eye(3).to_sparse(),
            torch.zeros(3, device="meta"),
            torch.zeros(2, dtype=torch.cfloat),
        ]
    )
    entries = [
        "blocks.99999.x",
        "pos_embed",
        "pos_embed.0",
        "head.weight",
        "patch_embed.lift8.conv_A1.weight",
    ]
    state = data.draw(
        st.dictionaries(
            st.one_of(st.integers(), texts, st.sampled_from(entries)),
            st.one_of(tensors, values),
            max_size=4,
        )
    )
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(FlopbenchError):
        load_released_checkpoint(
            tmp_path / "weights.pt", num_heads=data.draw(st.sampled_from([None, 0, -1, 3]))
        )
