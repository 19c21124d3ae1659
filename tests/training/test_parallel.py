"""Several processes train and evaluate what one would by itself."""

import json
from pathlib import Path

import pytest

from flopbench.errors import FlopbenchError
from flopbench.training.parallel import parallel
from tests.support.torchrun import torchrun
from tests.support.training import WORLD, network


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one_does(tmp_path: Path):
    done = torchrun("train", tmp_path, "cpu")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for way in ("replicated", "sharded"):
        assert max(found[way]["difference"].values()) < 1e-5, way
        assert found[way]["resumed"] == {"model": 0, "ema": 0}, way
        for together, alone in zip(found[way]["accuracy"], found[way]["alone"], strict=True):
            assert together["images"] == 9
            for one in (together, alone):
                for view in ("plain", "mirrored"):
                    # The last digits depend on what else is in a batch.
                    one[view]["nll"] = round(one[view]["nll"], 5)
            assert together == alone
    assert found["skipped"]


@pytest.mark.slow
def test_a_process_that_fails_says_why_and_ends_the_others():
    done = torchrun("fail")
    assert done.returncode == 1
    assert done.stdout == "process 0 prints\n"
    own = [line for line in done.stderr.splitlines() if line.startswith("flopbench:")]
    assert own == ["flopbench: the disk of the second process is full"]
    # In torchrun's summary, under the process that it was.
    assert "traceback : the disk of the second process is full" in done.stderr


def test_a_process_by_itself_has_nobody_to_share_a_network_with():
    model = network()
    assert parallel(model, WORLD, (8, 8)) is model
    with pytest.raises(FlopbenchError, match=r"sharded over several processes: start them by torchrun"):
        parallel(model, WORLD, (8, 8), sharded=True)
