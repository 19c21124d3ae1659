"""The memory frontier."""

import pytest

from flopbench.runner.frontier import largest_that_fits
from flopbench.runner.memory import available_bytes, oom_kills
from flopbench.runner.sweep import sweep
from tests.runner.conftest import Watcher


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 5, 16, 17, 100, 1000])
def test_the_largest_that_fits_is_found_to_one_part_in_sixteen(largest: int):
    tries: list[int] = []

    def fits(batch: int) -> bool:
        tries.append(batch)
        return batch <= largest

    found = largest_that_fits(fits, largest=4096)
    assert largest * 15 / 16 - 1 <= found <= largest
    assert len(tries) <= 16
    assert len(set(tries)) == len(tries)


def test_a_limit_ends_the_search():
    assert largest_that_fits(lambda batch: True, largest=100) == 64


def test_a_suite_that_asks_gets_frontiers(start, watcher: Watcher, monkeypatch: pytest.MonkeyPatch):
    import flopbench.runner.frontier as module

    monkeypatch.setattr(module, "LARGEST_BATCH", 4)
    monkeypatch.setattr(module.largest_that_fits, "__defaults__", (4,))
    run = start(batch_sizes=[1], memory_frontier=True)
    sweep(run, watcher)
    assert [(record.label.split(":")[1], record.largest_batch) for record in run.frontiers()] == [
        ("large", 4),
        ("small", 4),
    ]
    assert all(record.peak_bytes for record in run.frontiers())
    again = Watcher()
    sweep(run, again)
    assert again.frontiers == []


def test_available_memory_is_read(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  100 kB\nMemAvailable:    42 kB\n")
    assert available_bytes(file) == 42 * 1024
    assert available_bytes(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        ("0::/own", "own/memory.events"),
        ("0::/own", "memory.events"),  # in a container
        ("4:cpu,memory:/own\n0::/", "memory/own/memory.oom_control"),
    ],
)
def test_kills_for_want_of_memory_are_counted_in_the_own_group(tmp_path, membership: str, file: str):
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(membership)
    assert oom_kills(proc, groups) is None
    (proc / "vmstat").write_text("nr_free_pages 9\noom_kill 7\n")
    assert oom_kills(proc, groups) == 7
    (groups / file).parent.mkdir(parents=True)
    (groups / file).write_text("oom 5\noom_kill 3\n")
    assert oom_kills(proc, groups) == 3
