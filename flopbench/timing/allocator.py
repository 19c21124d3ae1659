"""The C library's allocator, told to keep what is freed."""

import ctypes
from contextlib import suppress

# Parameters of mallopt (malloc.h) and values that switch off giving memory back to the system.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER, _NO_MMAP = 2**31 - 1, 0

KEPT = "glibc, freed memory kept"


def keep_freed_memory() -> str | None:
    """Let glibc keep freed memory for the next allocation, as torch does on a GPU, for this process.

    By default glibc gives large blocks back as soon as they are free, and each call of a model faults
    its activations in again: tens of thousands of page faults a call for networks of many small
    operators, more than their arithmetic takes. What is timed then is the kernel, not the network.

    Returns:
        What to record of it: `KEPT`, or None where the C library is another one.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - another library lacks it and raises AttributeError
        if library.mallopt(_M_TRIM_THRESHOLD, _NEVER) and library.mallopt(_M_MMAP_MAX, _NO_MMAP):
            return KEPT
    return None
