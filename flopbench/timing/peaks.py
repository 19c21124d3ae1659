"""What the device itself can do: measured peaks, never a table's.

Three ceilings bound every network: arithmetic (FLOP/s of a large matrix product), memory (bytes/s of a
copy, beyond the caches and within them) and launches (seconds an operator costs however small it is).
Williams, Waterman, Patterson, *Roofline*, CACM 52(4), 2009, has the first two.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial

import torch

from flopbench.cells import DeviceKind, DType
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
LAUNCHES = 2000

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
    *cached, (_, rate) = copies
    return Peaks(
        flops_per_second=flops, copy_bytes_per_second=rate, cached_copies=tuple(cached), launch_seconds=launch
    )


def _matrix_rate(device: DeviceKind, dtype: DType, best: Best) -> float:
    """FLOP/s of the fastest square product, sizes growing until the rate stops to or the time is spent."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        rate = 0.0
        left = MATRIX_SECONDS[device]
        for edge in EDGES[device]:
            a, b = (torch.randn(edge, edge, device=device).to(product_dtype(dtype)) for _ in range(2))
            out = torch.empty_like(a)
            flops = 2 * edge**3
            # Dtypes that a CPU only emulates would spend minutes on sizes that change nothing.
            if rate and flops / rate > left / 3:
                break
            seconds = best(partial(torch.matmul, a, b, out=out), left / 3)
            grown, rate = flops / seconds > SATURATED * rate, max(rate, flops / seconds)
            if not grown:
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
        source = torch.ones(size // 4, device=device)
        target = torch.zeros_like(source)
        rates.append((2 * size, 2 * size / best(partial(target.copy_, source), COPY_SECONDS)))
    for index in range(len(rates) - 2, -1, -1):
        rates[index] = (rates[index][0], max(rates[index][1], rates[index + 1][1]))
    return rates


def _launch_seconds(device: DeviceKind, best: Best) -> float:
    """Seconds an operator on one element takes, one after another as a network runs them."""
    x = torch.ones(1, device=device)

    def many() -> None:
        for _ in range(LAUNCHES):
            torch.add(x, x)

    return best(many, COPY_SECONDS) / LAUNCHES


def _best_cpu(call: Callable[[], object], seconds: float) -> float:
    """The shortest of at least three calls, after one that warms up."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _best_cuda(call: Callable[[], object], seconds: float) -> float:
    """The same by events, several calls between two so that short kernels follow each other closely."""
    call()
    torch.cuda.synchronize()
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    calls, times = 5, []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start.record()
        for _ in range(calls):
            call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1e-3 / calls)
    return min(times)
