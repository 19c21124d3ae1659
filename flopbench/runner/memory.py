"""What the system says about memory: how much there is to have, and whether it killed for want of it."""

from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available_bytes(meminfo: Path = _PROC / "meminfo") -> int | None:
    """Memory that a new process can have without swapping; None where the system does not tell."""
    try:
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def oom_kills(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """How many processes were killed for want of memory; None where the system does not count them.

    Counted in this process's own control group (version 2, else 1), which others do not disturb, or else on
    the whole machine. In a container the group may lie at the root of what is mounted.
    """
    for file in (*_counters(proc, cgroups), proc / "vmstat"):
        try:
            rows = dict(line.split(" ", 1) for line in file.read_text().splitlines())
            return int(rows["oom_kill"])
        except (OSError, KeyError, ValueError):
            continue
    return None


def _counters(proc: Path, cgroups: Path) -> list[Path]:
    try:
        rows = [line.split(":", 2) for line in (proc / "self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    files = []
    for _, controllers, path in (row for row in rows if len(row) == 3):
        root, name = cgroups, "memory.events"
        if controllers:
            root, name = cgroups / "memory", "memory.oom_control"
        if not controllers or "memory" in controllers.split(","):
            files += [root / path.lstrip("/") / name, root / name]
    return files
