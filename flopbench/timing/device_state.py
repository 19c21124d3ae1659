"""What the device and its neighbours did while a cell was sampled."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from flopbench.cells import DeviceKind

# NVML's clocks-event reasons that slow a GPU down against its will (nvml.h, nvmlClocksEventReasons).
THROTTLE_REASONS = {
    0x0000000000000004: "software power cap",
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "hardware power brake",
}


class Watch(Protocol):
    """Observes a device from its creation on; `sample` is called now and then, `report` at the end."""

    def sample(self) -> None:
        """Look once; takes well under a millisecond."""
        ...

    def report(self) -> dict[str, Any]:
        """What was seen, as JSON values."""
        ...


class CpuWatch:
    """Load by others: the machine's busy time less this process's own, in cores."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self.stat = stat
        self.start = time.monotonic()
        self.busy = self._busy_seconds()
        self.own = self._own_seconds()

    def sample(self) -> None:
        """Nothing: counters tell the whole interval."""

    def report(self) -> dict[str, Any]:
        """`load_average` (1 min), `foreign_cores` (busy cores not ours), where the system tells."""
        state: dict[str, Any] = {}
        with suppress(OSError, AttributeError):
            state["load_average"] = round(os.getloadavg()[0], 2)
        elapsed = time.monotonic() - self.start
        busy = self._busy_seconds()
        if self.busy is not None and busy is not None and elapsed > 0:
            foreign = (busy - self.busy) - (self._own_seconds() - self.own)
            state["foreign_cores"] = round(max(0.0, foreign / elapsed), 3)
        return state

    def _busy_seconds(self) -> float | None:
        """Seconds that all cores together have been busy, steal time included (it is somebody's)."""
        try:
            fields = [int(field) for field in self.stat.read_text().splitlines()[0].split()[1:]]
        except (OSError, ValueError, IndexError):
            return None
        idle = fields[3] + fields[4]
        # The last two (guest) are contained in the first two.
        return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def _own_seconds() -> float:
        times = os.times()
        return times.user + times.system


class CudaWatch:
    """Clocks, throttling, temperature, power and foreign processes through NVML, where that is there."""

    def __init__(self, nvml: Any = None, index: int = 0) -> None:
        self.nvml = nvml
        self.rows: list[dict[str, Any]] = []
        self.reasons: set[str] = set()
        self.foreign = 0
        self.handle = None
        with suppress(Exception):
            if self.nvml is None:
                import pynvml

                self.nvml = pynvml
            self.nvml.nvmlInit()
            self.handle = self.nvml.nvmlDeviceGetHandleByIndex(index)
        self.sample()

    def sample(self) -> None:
        """One row; a figure that this GPU does not tell is left out."""
        if self.handle is None:
            return
        nvml, handle, row = self.nvml, self.handle, {}
        readings = {
            "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "watts": lambda: round(nvml.nvmlDeviceGetPowerUsage(handle) / 1000, 1),
        }
        for name, read in readings.items():
            with suppress(nvml.NVMLError):
                row[name] = read()
        with suppress(nvml.NVMLError):
            mask = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
            self.reasons |= {text for bit, text in THROTTLE_REASONS.items() if mask & bit}
        with suppress(nvml.NVMLError):
            pids = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
            self.foreign = max(self.foreign, len(pids - {os.getpid()}) if os.getpid() in pids else 0)
        self.rows.append(row)

    def report(self) -> dict[str, Any]:
        """Least and largest of each reading, `throttle_reasons`, `foreign_processes`."""
        if self.handle is None:
            return {"nvml": "not available"}
        state: dict[str, Any] = {}
        for name in sorted({name for row in self.rows for name in row}):
            values = [row[name] for row in self.rows if name in row]
            state[name] = [min(values), max(values)]
        return state | {"throttle_reasons": sorted(self.reasons), "foreign_processes": self.foreign}


def watch(device: DeviceKind) -> Watch:
    """A watch over the current device."""
    return CudaWatch(index=torch.cuda.current_device()) if device == "cuda" else CpuWatch()
