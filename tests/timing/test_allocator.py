"""Freed memory stays with a process that measures."""

import platform
import resource
import sys

import pytest

from flopbench.runner.process import Report, run_job
from flopbench.timing.allocator import KEPT, keep_freed_memory


def faults_of_a_second_allocation(report: Report, keep: bool) -> tuple[str | None, int]:
    """Page faults of a block of 4 MiB, right after one of the same size was freed."""
    import torch

    told = keep_freed_memory() if keep else None
    torch.ones(1 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 20)
    return told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or sys.platform != "linux", reason="needs glibc")
def test_kept_memory_is_not_faulted_in_again():
    told, faults = run_job(faults_of_a_second_allocation, True, timeout=60).value
    assert told == KEPT
    _, usual = run_job(faults_of_a_second_allocation, False, timeout=60).value
    assert faults < 100 < usual
