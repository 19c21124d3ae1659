"""Networks of others, whatever they take and return: counted, checked, measured, by name and from Python."""

import shutil
import threading
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import flopbench
from flopbench.cli import app
from flopbench.flops.audit import FLOP_COUNTER, audit
from flopbench.inputs import Inputs
from flopbench.results import CellRecord
from tests.support import foreign


class Kind(NamedTuple):
    """A pair of `tests.support.foreign`, and what belongs to it, by name."""

    network: str
    inputs: str
    loss: str
    same: str

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Networks that cannot be pickled: measured in this process, for tests are to be quick."""
        pair = getattr(foreign, self.network)(), getattr(foreign, f"small_{self.network}")()
        for network in pair:
            network.lock = threading.Lock()
        return pair


KINDS = (
    Kind("encoder", "masked_tokens", "language_loss", "logits"),
    Kind("recurrent", "tokens", "classification_loss", "0"),
    Kind("detector", "photographs", "detection_loss", "output"),
    Kind("unet", "noisy", "diffusion_loss", "sample"),
)
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.network)


def _measured(record: CellRecord) -> None:
    assert record.status == "ok", record.reason
    assert record.speedup is not None
    for result in (record.baseline, record.candidate):
        assert result is not None
        assert result.macs
        assert result.parameters
    assert record.macs_ratio is not None
    assert record.macs_ratio > 1


@each
def test_python_measures_it_in_every_pass(kind):
    baseline, candidate = kind.pair()
    result = flopbench.benchmark(
        baseline,
        candidate,
        getattr(foreign, kind.inputs),
        loss=getattr(foreign, kind.loss),
        batch_sizes=[2],
        passes=["forward", "backward", "train"],
        cell_seconds=0.05,
    )
    assert [record.cell.pass_ for record in result.records] == ["forward", "backward", "train"]
    for record in result.records:
        _measured(record)
        assert "in-process" in {flag.kind for flag in record.flags}
    assert len(result.frame()) == 3
    assert type(baseline).__name__ in str(result)


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A suite of somebody's own folder, with the networks beside it."""
    shutil.copy(foreign.__file__, tmp_path / "nets.py")
    pairs = [
        f'{{ baseline = "nets:{kind.network}", candidate = "nets:small_{kind.network}", '
        f'inputs = "nets:{kind.inputs}", loss = "nets:{kind.loss}" }},'
        for kind in KINDS
    ]
    (tmp_path / "nets.toml").write_text(
        "\n".join(('title = "Foreign"', "pairs = [", *pairs, "]", "[profiles.cpu]", "batch_sizes = [2]"))
    )
    monkeypatch.chdir(tmp_path)
    return "nets.toml"


def _run(suite: str, *options: str) -> tuple[CellRecord, ...]:
    done = CliRunner().invoke(app, ["run", "--suite", suite, "--device", "cpu", *options])
    assert done.exit_code == 0, done.output
    return tuple(flopbench.load_run("results").records)


def test_a_suite_measures_all_of_them_by_their_own_losses(suite):
    passes = [option for name in ("forward", "backward", "train") for option in ("--pass", name)]
    records = _run(suite, *passes, "--mode", "eager", "--cell-seconds", "0.05")
    assert len(records) == len(KINDS) * 3
    for record in records:
        _measured(record)


@pytest.mark.slow
def test_a_suite_trains_them_compiled(suite):
    records = _run(suite, "--pass", "train", "--mode", "compile", "--cell-seconds", "0.05")
    assert len(records) == len(KINDS)
    for record in records:
        _measured(record)


@each
def test_every_operator_with_arithmetic_is_counted(kind):
    network, _ = kind.pair()
    inputs = Inputs.of(getattr(foreign, kind.inputs)(2))
    counted = audit(network, kind.network, inputs)
    assert set(counted.forward[FLOP_COUNTER].uncounted) <= {"embedding"}
    assert counted.notes == ()
    shown = str(flopbench.count_flops(network, inputs))
    assert FLOP_COUNTER in shown


@each
def test_a_network_is_the_same_as_itself(kind):
    network, _ = kind.pair()
    result = flopbench.benchmark(
        network,
        network,
        getattr(foreign, kind.inputs),
        same=kind.same,
        batch_sizes=[2],
        passes=["forward"],
        cell_seconds=0.05,
    )
    (record,) = result.records
    assert record.status == "ok", record.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_the_detectors_of_torchvision_are_measured(name):
    models = pytest.importorskip("torchvision").models.detection
    network = getattr(models, name)(weights=None, weights_backbone=None, num_classes=5).eval()
    images: list[Any] = [torch.rand(3, 96, 96), torch.rand(3, 96, 128)]
    result = flopbench.benchmark(network, network, images, passes=["forward"], cell_seconds=0.5)
    (record,) = result.records
    assert record.status == "ok", record.reason
