"""What the device and its neighbours did while a cell was sampled."""

import math
import os
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from flopbench.modes import DeviceKind
from flopbench.results import POWER_LIMIT
from flopbench.timing.energy import Meter, Power, Rapl

# What holds a GPU's clocks back: its bit among NVML's clocks-event reasons (nvml.h), the field that counts
# its nanoseconds, and the policy of the older call that does.
THROTTLE_REASONS: dict[str, tuple[int, str, str]] = {
    POWER_LIMIT: (0x04, "NVML_FI_DEV_PERF_POLICY_POWER", "NVML_PERF_POLICY_POWER"),
    "hardware slowdown": (0x08, "", ""),
    "software thermal slowdown": (0x20, "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN", ""),
    "hardware thermal slowdown": (0x40, "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN", ""),
    "hardware power brake": (0x80, "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN", ""),
    "thermal limit": (0, "NVML_FI_DEV_PERF_POLICY_THERMAL", "NVML_PERF_POLICY_THERMAL"),
    "board limit": (0, "NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT", "NVML_PERF_POLICY_BOARD_LIMIT"),
    "reliability limit": (0, "NVML_FI_DEV_PERF_POLICY_RELIABILITY", "NVML_PERF_POLICY_RELIABILITY"),
}

# Share of the time from which on a reason counts.
THROTTLED = 0.01

# Seconds from one look at the counter of energy to the next, and at clocks and the like, which change slowly.
ENERGY_SECONDS, ROW_SECONDS = 0.02, 0.2

# Looking may take up to one part in so many of the time, on drivers that answer slowly.
LOOKS = 20


class Watch(Protocol):
    """Observes a device from its creation on, while both models of a pair take turns."""

    def turn(self, role: str, calls: int) -> AbstractContextManager[None]:
        """Within it, so many calls of the model of `role` run, and nothing else."""
        ...

    def glance(self) -> None:
        """Look, if it is time to: to be called often while a model runs."""
        ...

    def report(self) -> dict[str, Any]:
        """What was seen, as JSON values."""
        ...

    def power(self) -> dict[str, Power]:
        """What each model took, by role; only what can be known."""
        ...


class CpuWatch:
    """Load by others, the machine's busy time less this process's own, in cores; and energy (`Rapl`)."""

    def __init__(self, stat: Path = Path("/proc/stat"), rapl: Rapl | None = None) -> None:
        self.stat = stat
        self.meter = Meter(rapl or Rapl(), refresh=Rapl.REFRESH)
        self.start = time.monotonic()
        self.busy = self._busy_seconds()
        self.own = self._own_seconds()

    def turn(self, role: str, calls: int) -> AbstractContextManager[None]:
        """See `Watch.turn`."""
        return self.meter.turn(role, calls)

    def glance(self) -> None:
        """Nothing: counters tell the whole interval."""

    def power(self) -> dict[str, Power]:
        """See `Watch.power`; the energy is of all that ran on the processor's packages meanwhile."""
        return self.meter.power()

    def report(self) -> dict[str, Any]:
        """`load_average` (1 min), `foreign_cores` (busy, not ours), `mean_watts`, where the system tells."""
        state: dict[str, Any] = {}
        with suppress(OSError, AttributeError):
            state["load_average"] = round(os.getloadavg()[0], 2)
        elapsed = time.monotonic() - self.start
        busy = self._busy_seconds()
        if self.busy is not None and busy is not None and elapsed > 0:
            foreign = (busy - self.busy) - (self._own_seconds() - self.own)
            state["foreign_cores"] = round(max(0.0, foreign / elapsed), 3)
        return state | _mean_watts(self.meter)

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
        # Of this process and those of its own that have ended.
        return sum(os.times()[:4])


class CudaWatch:
    """Clocks, throttling, temperature, power, energy and foreign processes, by NVML where that is there.

    Clocks are looked at while work is queued (`glance`): after a synchronisation the card idles. What held
    them back, and energy, come from the driver's counters. No figure is worth a cell: whatever NVML raises,
    what it does not tell is left out.

    Args:
        nvml: the module; pynvml by default.
        uuid: of the card, or of the part of one (MIG) that is used, as torch or NVML writes it. Without it
            the machine's only card is watched, and none where it has several: NVML knows nothing of
            CUDA_VISIBLE_DEVICES.
        now: the wall clock.
    """

    def __init__(self, nvml: Any = None, uuid: str = "", now: Callable[[], float] = time.monotonic) -> None:
        self.nvml, self.now = nvml, now
        self.rows: list[dict[str, Any]] = []
        self.reasons: set[str] = set()
        self.foreign: int | None = None
        self.handle, self.divided = None, False
        self.energy_due = self.row_due = -math.inf
        with suppress(Exception):
            if self.nvml is None:
                import pynvml

                self.nvml = pynvml
            self.nvml.nvmlInit()
            weakref.finalize(self, self.nvml.nvmlShutdown)
            self.handle = _find(self.nvml, uuid)
            self.divided = _is_divided(self.nvml, self.handle)
        self.meter = Meter(self._joules, now=now)
        self.start, self.held = now(), self._held_back()

    def turn(self, role: str, calls: int) -> AbstractContextManager[None]:
        """See `Watch.turn`."""
        return self.meter.turn(role, calls)

    def glance(self) -> None:
        """One row, a figure that this GPU does not tell left out, and the counter of energy."""
        begin = self.now()
        if begin >= self.energy_due:
            self.meter.read()
            self.energy_due = self._next(begin, ENERGY_SECONDS)
        if begin >= self.row_due:
            self._look()
            self.row_due = self._next(begin, ROW_SECONDS)

    def power(self) -> dict[str, Power]:
        """See `Watch.power`."""
        return self.meter.power()

    def report(self) -> dict[str, Any]:
        """Least and largest of each reading, `mean_watts`, what held the clocks back, `foreign_processes`.

        `throttle_reasons` are those that the driver counted for some of the time, or that were seen where it
        does not count; `throttled` is the share of the time of each that it counted. The power limit is one
        of them, and no fault (`timing.flags`).
        """
        if self.handle is None:
            return {"nvml": "not available"}
        state: dict[str, Any] = {}
        for name in sorted({name for row in self.rows for name in row}):
            values = [row[name] for row in self.rows if name in row]
            state[name] = [min(values), max(values)]
        elapsed = self.now() - self.start
        shares = {
            reason: round(min(1.0, (seconds - self.held[reason]) / elapsed), 3)
            for reason, seconds in self._held_back().items()
            if reason in self.held and elapsed > 0
        }
        throttled = {reason: share for reason, share in shares.items() if share >= THROTTLED}
        if self.foreign is not None:
            state["foreign_processes"] = self.foreign
        return state | {
            "throttle_reasons": sorted(self.reasons - shares.keys() | throttled.keys()),
            "throttled": throttled,
            **_mean_watts(self.meter),
        }

    def _next(self, begin: float, period: float) -> float:
        now = self.now()
        return now + max(period, LOOKS * (now - begin))

    def _look(self) -> None:
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
            with suppress(Exception):
                row[name] = read()
        # The second is the older drivers' name.
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            with suppress(Exception):
                mask = getattr(nvml, name)(handle)
                self.reasons |= {reason for reason, (bit, *_) in THROTTLE_REASONS.items() if mask & bit}
                break
        with suppress(Exception):
            pids = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
            # One of them is this process, under whatever number: in a container NVML tells the host's, or
            # nothing at all.
            if pids:
                self.foreign = max(self.foreign or 0, len(pids) - 1)
        self.rows.append(row)

    def _joules(self) -> float | None:
        """The card's counter; None of one that is divided, for it holds the energy of all parts."""
        if self.handle is None or self.divided:
            return None
        with suppress(Exception):
            return self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) * 1e-3
        return None

    def _held_back(self) -> dict[str, float]:
        """Seconds that the clocks were held back since the driver was loaded, by reason; those it counts."""
        if self.handle is None:
            return {}
        found: dict[str, float] = {}
        for reason, (_, field, policy) in THROTTLE_REASONS.items():
            nanoseconds: Any = _field(self.nvml, self.handle, field)
            if nanoseconds is None and policy:
                with suppress(Exception):
                    status = self.nvml.nvmlDeviceGetViolationStatus(self.handle, getattr(self.nvml, policy))
                    nanoseconds = status.violationTime
            if nanoseconds is not None:
                found[reason] = nanoseconds * 1e-9
        return found


def _find(nvml: Any, uuid: str) -> Any:
    """NVML's handle of the card that is used, whole or in part; None where that cannot be told."""
    for name in (uuid, f"GPU-{uuid}", f"MIG-{uuid}") if uuid else ():
        with suppress(Exception):
            handle = nvml.nvmlDeviceGetHandleByUUID(name)
            if name.startswith("MIG-"):
                return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
            return handle
    return nvml.nvmlDeviceGetHandleByIndex(0) if nvml.nvmlDeviceGetCount() == 1 else None


def _is_divided(nvml: Any, handle: Any) -> bool:
    """Whether a card is in MIG mode; older cards have none."""
    with suppress(Exception):
        return nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    return False


def _field(nvml: Any, handle: Any, name: str) -> int | None:
    """A field of NVML's, an unsigned 64-bit number; None where the package, driver or card has it not."""
    number = getattr(nvml, name, None)
    if number is None:
        return None
    with suppress(Exception):
        (value,) = nvml.nvmlDeviceGetFieldValues(handle, [number])
        return value.value.ullVal if value.nvmlReturn == nvml.NVML_SUCCESS else None
    return None


def _mean_watts(meter: Meter) -> dict[str, float]:
    return {} if meter.watts is None else {"mean_watts": round(meter.watts, 1)}


def energy_counter(device: DeviceKind) -> Callable[[], float | None]:
    """A counter of the joules that the current device took since some moment; None where it does not tell."""
    return watch(device).meter.counter


def watch(device: DeviceKind) -> CpuWatch | CudaWatch:
    """A watch over the current device."""
    if device == "cpu":
        return CpuWatch()
    return CudaWatch(
        uuid=str(getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", ""))
    )
