"""Which process this is of those that torchrun starts: believed only where it fits together."""

import json
from pathlib import Path

import pytest
import torch

from flopbench.errors import FlopbenchError
from flopbench.ranks import Place, claim, place, tell_torchrun, tells
from flopbench.training import world as module
from flopbench.training.world import world

SECOND_OF_FOUR = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As by torchrun, the second of four processes on two machines."""
    for name, value in SECOND_OF_FOUR.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_process_by_itself_needs_no_torchrun(monkeypatch: pytest.MonkeyPatch):
    for name in SECOND_OF_FOUR:
        monkeypatch.delenv(name, raising=False)
    assert place() is None
    # As some clusters have it for whatever they start.
    monkeypatch.setenv("WORLD_SIZE", "1")
    with world("cpu") as alone:
        assert (alone.device, alone.rank, alone.size, alone.first) == (torch.device("cpu"), 0, 1, True)
        assert alone.sum(torch.ones(2)).tolist() == [1, 1]
        assert alone.share("as it is") == "as it is"


def test_torchrun_says_which_process_it_is(started: pytest.MonkeyPatch):
    assert place() == Place(rank=1, size=4, local_rank=1, local_size=2)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("MASTER_PORT", "", "MASTER_PORT is missing"),
        ("RANK", "", "RANK is missing"),
        ("RANK", "first", "RANK is 'first', no number"),
        ("RANK", "4", "RANK 4 is not below WORLD_SIZE 4"),
        ("WORLD_SIZE", "1", "RANK 1 is not below WORLD_SIZE 1"),
        ("LOCAL_RANK", "2", "LOCAL_RANK 2 is not below LOCAL_WORLD_SIZE 2"),
        ("LOCAL_WORLD_SIZE", "5", "that is above WORLD_SIZE 4"),
    ],
)
def test_what_contradicts_itself_is_refused(
    name: str, value: str, complaint: str, started: pytest.MonkeyPatch
):
    started.setenv(name, value)
    with pytest.raises(FlopbenchError, match=complaint) as caught, world("cpu"):
        pass
    assert "torchrun --nproc-per-node=N" in str(caught.value)


def test_every_process_needs_a_gpu_of_its_own(started: pytest.MonkeyPatch):
    started.setattr(module, "choose_device", lambda kind: kind)
    started.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(FlopbenchError, match=r"2 processes on this machine and 1 GPU: .*per-node=1"),
        world("cuda"),
    ):
        pass


def test_what_all_find_the_first_one_tells(started: pytest.MonkeyPatch):
    error = FlopbenchError("no such recipe")
    assert not tells(error)
    claim(error)
    assert tells(error)
    started.setenv("RANK", "0")
    assert tells(FlopbenchError("no such recipe"))


def test_torchrun_is_told_the_reason(started: pytest.MonkeyPatch, tmp_path: Path):
    tell_torchrun("nobody asks")
    started.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    tell_torchrun("no such recipe")
    told = json.loads((tmp_path / "error.json").read_text())
    assert told["message"]["message"] == "no such recipe"
