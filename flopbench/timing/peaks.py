"""What the device itself can do: measured peaks, never a table's.

Three ceilings bound every network: arithmetic (FLOP/s of a large matrix product), memory (bytes/s of a
copy, beyond the caches and within them) and launches (seconds an operator costs however small it is; on
CUDA the host and the device apart). Williams, Waterman, Patterson, *Roofline*, CACM 52(4), 2009, has the
first two. Ceilings are those of short bursts: under a power cap a GPU that multiplies for seconds lowers its
clock, and stays below the peak.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from flopbench.errors import out_of_memory
from flopbench.modes import DeviceKind, DType
from flopbench.private import hold_device
from flopbench.results import Peaks
from flopbench.timing.workload import product_dtype

# Seconds of matrix products a dtype, and of copies a size.
MATRIX_SECONDS = {"cpu": 0.6, "cuda": 0.3}
COPY_SECONDS = 0.05
# Edges of the square matrices tried, and bytes of the copied arrays; source and destination are two.
EDGES = {"cpu": (512, 1024, 2048, 4096), "cuda": (2048, 4096, 8192, 16384)}
COPIES = {
    "cpu": tuple(2**power for power in (17, 19, 20, 21, 22, 23, 24, 28)),
    "cuda": tuple(2**power for power in (22, 23, 24, 25, 26, 30)),
}
# A larger size is tried only while it could still be faster by as much.
SATURATED = 1.02
# Operators launched in a row: on CUDA fewer than its queue holds, for a full queue waits for the device.
LAUNCHES = {"cpu": 2000, "cuda": 500}
# Calls between two of a GPU's events, and operators per call where those are small.
CALLS = 5
SMALL_KERNELS = 10
# The device waits for that long, some millisecond, while the host queues these calls.
HELD_CYCLES = 2_000_000

# Seconds of one call of something, at best, over repetitions that fill some time.
Best = Callable[[Callable[[], object], float], float]


def measure_peaks(device: DeviceKind, dtypes: Iterable[DType], *, best: Best | None = None) -> Peaks:
    """Measure the device: about a second a dtype and a second more.

    Args:
        device: to measure, with the threads that torch uses now.
        dtypes: whose matrix products to time; autocast ones count as their low precision.
        best: times something; tests give a stand-in.

    Returns:
        The best rates seen: they are ceilings, and what disturbs a call can only lower its rate.
    """
    best = best or (_best_cuda if device == "cuda" else _best_cpu)
    with torch.inference_mode():
        flops: dict[DType, float] = {dtype: _matrix_rate(device, dtype, best) for dtype in dtypes}
        copies = _copy_rates(device, best)
        launch = _launch_seconds(device, best)
        kernel = _kernel_seconds(best) if device == "cuda" else None
    if device == "cuda":
        # What is measured next has the memory to itself.
        torch.cuda.empty_cache()
    *cached, (_, rate) = copies
    return Peaks(
        flops_per_second=flops,
        copy_bytes_per_second=rate,
        cached_copies=tuple(cached),
        launch_seconds=launch,
        kernel_seconds=kernel,
    )


def _matrix_rate(device: DeviceKind, dtype: DType, best: Best) -> float:
    """FLOP/s of the fastest square product, sizes growing until the rate or the memory stops them.

    So does the time, which dtypes that a CPU only emulates would spend on sizes that change nothing.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        rate = 0.0
        budget = MATRIX_SECONDS[device] / 3
        for edge in EDGES[device]:
            flops = 2 * edge**3
            if rate and flops / rate > budget:
                break
            with _memory_may_end(enough=bool(rate)):
                a, b = (torch.randn(edge, edge, device=device).to(product_dtype(dtype)) for _ in range(2))
                found = flops / best(partial(torch.matmul, a, b, out=torch.empty_like(a)), budget)
                grown, rate = found > SATURATED * rate, max(rate, found)
                if grown:
                    continue
            break
        return rate
    finally:
        torch.set_float32_matmul_precision(before)


def _copy_rates(device: DeviceKind, best: Best) -> list[tuple[int, float]]:
    """(bytes of source and destination together, bytes read and written a second), sizes growing.

    What fits in a cache cannot really be slower than what does not: a small copy that seems to be has
    timed its launch, and gets the rate of the next larger.
    """
    rates = []
    for size in COPIES[device]:
        with _memory_may_end(enough=bool(rates)):
            source = torch.ones(size // 4, device=device)
            target = torch.zeros_like(source)
            rates.append((2 * size, 2 * size / best(partial(target.copy_, source), COPY_SECONDS)))
    for index in range(len(rates) - 2, -1, -1):
        rates[index] = (rates[index][0], max(rates[index][1], rates[index + 1][1]))
    return rates


@contextmanager
def _memory_may_end(*, enough: bool) -> Iterator[None]:
    """Within it, want of memory is no error once `enough` is known: what fits a small card is its ceiling."""
    try:
        yield
    except Exception as error:
        if not enough or out_of_memory(error) is None:
            raise


def _launch_seconds(device: DeviceKind, best: Best) -> float:
    """Seconds that one of many operators on one element takes, on CUDA the host alone."""
    x = torch.ones(1, device=device)
    count = LAUNCHES[device]

    def many() -> None:
        for _ in range(count):
            torch.add(x, x)

    if device == "cuda":
        best = partial(_best_cpu, before=torch.cuda.synchronize)
    return best(many, COPY_SECONDS) / count


def _kernel_seconds(best: Best) -> float:
    """Seconds from the start of a kernel on one element to that of the next, which waits for it."""
    x = torch.ones(1, device="cuda")

    def some() -> None:
        for _ in range(SMALL_KERNELS):
            torch.add(x, x, out=x)

    return best(some, COPY_SECONDS) / SMALL_KERNELS


def _best_cpu(
    call: Callable[[], object], seconds: float, before: Callable[[], object] = lambda: None
) -> float:
    """The shortest of at least three calls, after one that warms up; `before` each, untimed, another."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        before()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _best_cuda(call: Callable[[], object], seconds: float) -> float:
    """The same by events, of several calls that are queued while the device waits.

    So short kernels follow each other closely, however long the host takes to launch one.
    """
    call()
    torch.cuda.synchronize()
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        hold_device(HELD_CYCLES)
        start.record()
        for _ in range(CALLS):
            call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1e-3 / CALLS)
    return min(times)
