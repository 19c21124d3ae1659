"""Freed memory stays with a process that measures."""

import platform
import resource
import sys

import pytest

from flopbench.runner.process import Report, run_job
from flopbench.timing.allocator import KEPT, keep_freed_memory


def page_faults(report: Report, keep: bool) -> tuple[str | None, int]:
    """Page faults of ten rounds of large and small blocks, after ten rounds of warm-up."""
    import torch

    def rounds() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            for elements in (24 << 20, 1 << 20, 3 << 20):
                torch.ones(elements)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    told = keep_freed_memory() if keep else None
    rounds()
    return told, rounds()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or sys.platform != "linux", reason="needs glibc")
def test_kept_memory_is_not_faulted_in_again():
    told, kept = run_job(page_faults, True, timeout=60).value
    assert told == KEPT
    _, usual = run_job(page_faults, False, timeout=60).value
    # 96 MiB lie above the size from which glibc gives every block back: 24 thousand pages each time.
    assert usual >= 10 * 24_000
    assert kept < usual / 4
