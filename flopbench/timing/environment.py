"""What a run is taken on. Nothing personal: no user, no host name, no path."""

import os
import platform
import re
import subprocess
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from flopbench import __version__
from flopbench.engines.needs import installed_engines
from flopbench.errors import FlopbenchError
from flopbench.kernels import source_digest
from flopbench.kernels.compilers import c_compiler, missing_c_compiler
from flopbench.modes import DeviceKind
from flopbench.private import compiler_version, with_version
from flopbench.results import Environment
from flopbench.timing.allocator import keep_freed_memory


def choose_device(asked: str | None) -> DeviceKind:
    """The device to measure on: the one asked for, else a GPU, else the CPU.

    Raises:
        FlopbenchError: CUDA was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        built = torch.version.cuda
        why = "torch sees no GPU" if built else f"torch {torch.__version__} is built without CUDA"
        raise FlopbenchError(f"device cuda is not available: {why}; use --device cpu")
    if asked in ("cpu", "cuda"):
        return asked
    return "cuda" if available else "cpu"


def describe(asked: str | None = None) -> Environment:
    """The environment of this process.

    Raises:
        FlopbenchError: the device asked for is not there.
    """
    device = choose_device(asked)
    cpu = _cpu_name()
    common: dict[str, Any] = {
        "device": device,
        "cpu": cpu,
        "cores": _usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_bytes": _memory_bytes(),
        "allocator": keep_freed_memory(),
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": metadata.version("triton") if find_spec("triton") else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "compiler": compiler_version(),
        "c_compiler": _c_compiler(),
        "kernels": source_digest(),
        "fvcore": metadata.version("fvcore"),
        "flopbench": __version__,
        "commit": _commit(),
        "engines": installed_engines(),
    }
    if device == "cpu":
        return Environment(device_name=cpu, **common)
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    cudnn = torch.backends.cudnn.version()
    return Environment(
        device_name=properties.name,
        device_count=torch.cuda.device_count(),
        device_memory_bytes=properties.total_memory,
        driver=_driver(),
        cuda=torch.version.cuda,
        cudnn=str(cudnn) if cudnn else None,
        **common,
    )


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()


def _memory_bytes() -> int:
    """Physical memory; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _c_compiler() -> str | None:
    found = c_compiler()
    return with_version(found) if found and missing_c_compiler() is None else None


def _driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            version = pynvml.nvmlSystemGetDriverVersion()
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # NVML missing, or a driver that will not tell: not knowing is no reason to stop
        return None
    return version.decode() if isinstance(version, bytes) else version


def _commit() -> str | None:
    """The commit of the repository of the current folder, with `+` where it has changes; None without one.

    A run belongs to its history: that of the user's own networks, or flopbench's for those who work on it.
    """
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
