"""`flopbench.benchmark`: two networks of anybody's, a few lines, a run like any other."""

import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flopbench
from flopbench.api import Interrupted
from flopbench.cells import Cell
from flopbench.errors import FlopbenchError, NothingMeasuredError
from flopbench.results import CellRecord
from flopbench.runner.benchmark import Given, devices_of
from tests.runner.conftest import Watcher


def quick(*networks: Any, progress: Any = False, **named: Any) -> flopbench.Result:
    return flopbench.benchmark(*networks, cell_seconds=0.2, devices="cpu", progress=progress, **named)


TOKENS = torch.arange(12).view(2, 6)


class Reader(nn.Module):
    """Of token ids and a mask; it gives a dictionary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.head = nn.Linear(width, 5)

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.embed(tokens) * mask[..., None])}


class Guarded(nn.Module):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 5)
        self.guard = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def total(output: Any, inputs: flopbench.Inputs) -> Tensor:
    return output["logits"].sum() if isinstance(output, dict) else output.sum()


def test_two_networks_of_any_inputs_become_a_run_like_any_other(tmp_path: Path):
    wide, narrow = Reader(32), Reader(8).requires_grad_(True)
    weights = wide.head.weight.clone()
    inputs = {"tokens": TOKENS, "mask": torch.ones(2, 6)}
    result = quick(wide, {"narrow": narrow}, inputs, loss=total, passes=["forward", "train"])
    assert [record.status for record in result.records] == ["ok", "ok"]
    assert [record.cell.batch_size for record in result.records] == [2, 2]
    assert not any(flag.kind == "in-process" for record in result.records for flag in record.flags)
    assert result.records[0].cell.labels == ("Reader", "narrow")
    assert result.runs[0].info.command == (
        "flopbench.benchmark(baseline, candidate, inputs, loss=loss, devices='cpu', "
        "passes=['forward', 'train'], cell_seconds=0.2)"
    )
    assert wide.head.weight.equal(weights)
    assert wide.head.weight.grad is None
    saved = result.save(tmp_path / "saved")
    code = f"""if True:
        import flopbench
        result = flopbench.load_run({str(saved)!r})
        print([record.cell.labels for record in result.records], result.frame().shape[0])
        result.report({str(tmp_path / "reports")!r})
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[('Reader', 'narrow'), ('Reader', 'narrow')] 2", done.stderr
    assert list((tmp_path / "reports").rglob("report.md"))
    command = [sys.executable, "-m", "flopbench", "run", "--resume", str(saved)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "Reader, narrow were given from Python: call flopbench.benchmark again" in refused.stderr
    folder = result.runs[0].path
    del result
    assert not folder.exists()


SCRIPT = """
import torch
from torch import nn
import flopbench

print("begins")

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, width), nn.Linear(width, 6))

    def forward(self, x):
        return scaled(self.layers(x))

def scaled(x):
    return torch.relu(x) * 2

result = flopbench.benchmark(Net(16), Net(4), torch.randn(3, 6), devices="cpu", cell_seconds=0.2)
print([(record.status, record.cell.labels) for record in result.records])
"""


def test_a_script_without_a_guard_has_networks_of_its_own(tmp_path: Path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": root, "PATH": "/usr/bin"},
    )
    assert done.stdout.splitlines() == ["begins", "[('ok', ('Net', 'Net (candidate)'))]"], done.stderr
    assert "[1/1] Net (candidate)" in done.stderr


def test_what_does_not_pickle_is_measured_here_and_flagged():
    guarded, plain = Guarded(), nn.Linear(6, 5)
    kept = {name: value.clone() for name, value in guarded.state_dict().items()}
    result = quick(plain, guarded, torch.randn(3, 6), loss=total, passes=["forward", "train"], dtypes="bf16")
    for record in result.records:
        assert record.status == "ok", record.reason
        (flag,) = [flag for flag in record.flags if flag.kind == "in-process"]
        assert "Guarded.guard does not pickle" in flag.message
    assert guarded.training
    assert all(value.equal(kept[name]) for name, value in guarded.state_dict().items())


def doubled(x: Tensor) -> Tensor:
    return x * 2


def added(x: Tensor) -> Tensor:
    return x + x


def test_functions_are_networks_and_what_is_the_same_is_compared():
    result = quick(
        doubled,
        {"sum": added, "thrice": partial(torch.mul, 3)},
        lambda n: torch.ones(n, 4),
        batch_sizes=2,
        same="output",
    )
    ends = [(record.cell.labels[1], record.status) for record in result.records]
    assert ends == [("sum", "ok"), ("thrice", "failed")]


def test_where_nothing_could_be_measured_the_reasons_are_told():
    with pytest.raises(
        NothingMeasuredError, match=r"Reader\.forward\(\) missing .*'mask'.*inputs were not given"
    ):
        quick(Reader(8), Reader(4), batch_sizes=1)


def test_ctrl_c_keeps_what_was_measured():
    class Impatient(Watcher):
        def finished(self, record: CellRecord) -> None:
            super().finished(record)
            if len(self.records) == 1:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as stopped:
        quick(
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            torch.ones(2, 4),
            passes=["forward", "backward"],
            progress=Impatient(),
        )
    assert [record.status for record in stopped.value.result.records] == ["ok", "skipped"]


def given(baseline: Any, candidate: Any, inputs: Any = None, **named: Any) -> Given:
    pair = {name: named.pop(name, None) for name in ("loss", "same", "tolerance")}
    pair["perturb"] = named.pop("perturb", False)
    return Given(baseline, candidate, inputs, pair=pair, axes=named)


def cells(*arguments: Any, **named: Any) -> list[Cell]:
    return list(given(*arguments, **named).suite.profile("cpu").cells("cpu"))


def net() -> nn.Module:
    return nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("arguments", "named", "told"),
    [
        ((nn.Linear, net()), {}, "baseline is the class Linear: give an instance of it, Linear(...)"),
        (({"a": net()}, net()), {}, "baseline is a dict: give one network"),
        ((net(), {}), {}, "candidate is an empty dict"),
        ((net(), {"a": 3}), {}, "candidate 'a' is of type int: give a torch.nn.Module"),
        ((net(), torch.ones(3)), {}, "candidate is of type Tensor"),
        (("vit_s17", net()), {}, "unknown model 'vit_s17'; did you mean vit_s16"),
        ((net(), net(), net()), {}, "inputs is a network"),
        ((net(), net(), {"x": 3}), {}, "inputs hold no tensor"),
        ((net(), net(), torch.ones(2, 4)), {"batch_sizes": [1, 2]}, "for several give a function of it"),
        (
            (net(), net()),
            {"batch_sizes": 0},
            "batch_sizes[0]: input should be greater than or equal to 1, got 0",
        ),
        ((net(), net()), {"batch_size": 1}, "unknown argument 'batch_size'; did you mean batch_sizes"),
        # Of suites: it limits the memory of the process that measures, which may be the caller's.
        ((net(), net()), {"memory_frontier": True}, "unknown argument 'memory_frontier'"),
        ((net(), net()), {"budget_seconds": 3}, "unknown argument 'budget_seconds'"),
        ((net(), net()), {"passes": "foward"}, "passes[0]: input should be 'forward', 'backward' or 'train'"),
        ((net(), net()), {"tolerance": 0.1}, 'add same = "output"'),
        ((net(), net()), {"same": "output", "perturb": True}, "add perturb = false"),
        ((net(), net()), {"same": "output", "tolerance": -1}, "tolerance: input should be greater than 0"),
        ((net(), net(), torch.ones(0, 4)), {}, "inputs are empty (float32 [0, 4]): give a batch"),
        ((net(), net(), torch.ones(2, 4, device="meta")), {}, "inputs are on the device meta"),
        ((net(), net()), {"loss": 3.0}, "loss is 3.0: give a function"),
        ((net().double(), net().double()), {}, 'the networks are in float64: give dtypes="fp32"'),
    ],
)
def test_a_mistake_is_one_line(arguments: Any, named: Any, told: str):
    with pytest.raises(FlopbenchError) as error:
        given(*arguments, **named)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not str(error.value).startswith("'")


def test_what_is_given_is_read_with_usual_values():
    profile = given(net(), {"x\ny\x1b[2J": net()}, torch.ones(2, 4), same=0).suite.profile("cpu")
    (pair,) = profile.pairs
    assert pair.labels[1] == "x y [2J"
    assert pair.same == "0"
    # Ten times as wide is what the samples of a busy machine still answer.
    assert profile.precision == 0.02


def test_devices_are_named():
    assert devices_of(None) == [None]
    assert devices_of(["cpu", "cuda", "cpu"]) == ["cpu", "cuda"]
    for wrong in ("gpu", [], ["cpu", "tpu"]):
        with pytest.raises(FlopbenchError, match="choose cpu or cuda"):
            devices_of(wrong)


def test_networks_keep_their_own_dtype_unless_one_is_asked_for():
    (own,) = cells(net().bfloat16(), net().bfloat16(), torch.ones(2, 4))
    assert (own.dtype, own.pair.cast) == ("bf16", False)
    (cast,) = cells(net().double(), net(), torch.ones(2, 4), dtypes="fp32")
    assert (cast.dtype, cast.pair.cast) == ("fp32", True)
    (of_inputs,) = cells(doubled, added, lambda n: torch.ones(n, dtype=torch.float16), batch_sizes=3)
    assert (of_inputs.dtype, of_inputs.batch_size) == ("fp16", 3)
    (held,) = cells(lambda x: HELD(x), added, torch.ones(2, 4))
    assert held.dtype == "bf16"
    named = cells("vit_ti16", "vit_ti16.flop")
    assert {(cell.batch_size, cell.dtype, cell.pair.cast) for cell in named} == {
        (1, "fp32", True),
        (16, "fp32", True),
    }


HELD = nn.Linear(4, 4).bfloat16()


@pytest.mark.parametrize(
    ("baseline", "candidate", "labels"),
    [
        (net(), net(), [("Linear", "Linear (candidate)")]),
        (net(), {"Linear": net()}, [("Linear (baseline)", "Linear")]),
        (doubled, lambda x: x, [("doubled", "function")]),
        (
            partial(doubled),
            {"inputs": added, 3: added},
            [("doubled", "inputs (candidate)"), ("doubled", "3")],
        ),
        (torch.compile(net()), "vit_ti16", [("Linear", "ViT-Ti/16")]),
    ],
)
def test_networks_have_names(baseline: Any, candidate: Any, labels: list[tuple[str, str]]):
    assert [cell.labels for cell in cells(baseline, candidate, torch.ones(2, 4))] == labels


def test_many_candidates_are_counted_in_the_title():
    def title(many: int) -> str:
        networks = {f"n{number}": nn.Linear(6, 5) for number in range(many)}
        return given(nn.Linear(6, 5), networks, torch.ones(2, 6)).suite.title

    assert title(2) == "n0 and n1 against Linear"
    assert title(4) == "4 candidates against Linear"
