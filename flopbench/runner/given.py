"""Jobs on objects that a caller in Python gave: in fresh processes, which read them from a file, or here.

Classes and functions of the caller's own script or notebook go into the file by value, weights as they are
in memory; a worker that changes its weights changes its own. What cannot go into a file is worked on in the
caller's process, by the same jobs.
"""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cloudpickle
import torch
from torch import Tensor

from flopbench.errors import FlopbenchError, in_one_line, out_of_memory
from flopbench.models import foreign
from flopbench.modes import DeviceKind
from flopbench.results import Flag
from flopbench.runner.here import as_it_was, parts_of
from flopbench.runner.jobs import COMPILE
from flopbench.runner.process import Launch, Outcome, Report, called, describe, run_job

IN_PROCESS = "in-process"
"""The kind of the flag on what was measured in the caller's process."""

# Seconds that reading the file may take: tens of gigabytes from a slow disk.
_PATIENCE = 600.0


class Launcher(Launch, Protocol):
    """Calls jobs that find the objects; `flags` say what that makes less trustworthy."""

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Of every record."""
        ...

    def on(self, device: DeviceKind) -> "Launcher":
        """The same with what lay on a GPU on this device."""
        ...


@contextmanager
def launcher_of(objects: Mapping[str, Any], threads: int | None = None) -> Iterator[Launcher]:
    """What calls jobs on objects, which they find under the names `python:NAME`.

    Args:
        objects: by name; none where everything has a name of its own.
        threads: that a CPU computes with.

    Yields:
        One whose jobs have fresh processes, where the objects go into a file and out of it again; or else
        one that calls them here. The file is gone afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="flopbench-") as folder:
        file = Path(folder) / "objects"
        apart = Apart(file if objects else None, threads)
        why = _unwritable(objects, file) or _unreadable(apart) if objects else None
        if why is None:
            yield apart
        else:
            yield Here(objects, why, threads)


@dataclass(frozen=True)
class Apart:
    """Each job in a fresh process, which reads the objects from a file first."""

    file: Path | None
    threads: int | None = None
    device: DeviceKind = "cpu"
    flags: tuple[Flag, ...] = ()

    def on(self, device: DeviceKind) -> "Apart":
        """See `Launcher`."""
        return replace(self, device=device)

    def __call__(
        self,
        job: Callable[..., Any] | str,
        *arguments: Any,
        timeout: float,
        on_report: Report = lambda kind, value: None,
    ) -> Outcome:
        """See `run_job`."""
        run = partial(run_job, timeout=timeout, on_report=on_report, threads=self.threads)
        if self.file is None:
            return run(job, *arguments)
        return run(work, self.file, self.device, job, *arguments)


@dataclass(frozen=True)
class Here:
    """Each job in this process, which it leaves as it was (`as_it_was`).

    A job that hangs or crashes is not ended alone: `timeout` does not count, Ctrl-C does.
    """

    objects: Mapping[str, Any]
    why: str
    threads: int | None = None

    @property
    def flags(self) -> tuple[Flag, ...]:
        """See `Launcher`."""
        return (
            Flag(
                kind=IN_PROCESS,
                message=f"measured in the caller's process, beside all that goes on there: {self.why}",
                remedy="take out what does not pickle (a lock, a handle, a generator), or name what builds "
                'the network, "module:callable"',
            ),
        )

    def on(self, device: DeviceKind) -> "Here":
        """See `Launcher`: the objects stay where they lie, networks follow the cell."""
        return self

    def __call__(
        self,
        job: Callable[..., Any] | str,
        *arguments: Any,
        timeout: float,
        on_report: Report = lambda kind, value: None,
    ) -> Outcome:
        """See `run_job`. Nothing is compiled beforehand: side by side there would have to be processes."""
        if job == COMPILE:
            return Outcome("timeout", "not begun")
        try:
            with as_it_was(self.objects) as objects:
                if self.threads is not None:
                    torch.set_num_threads(self.threads)
                foreign.put(objects)
                return Outcome("done", called(job)(on_report, *arguments))
        except (Exception, SystemExit) as error:
            return describe(error)
        finally:
            foreign.put({})


def work(
    report: Report, file: Path, device: DeviceKind, job: Callable[..., Any] | str, *arguments: Any
) -> Any:
    """A job of a worker, on the objects in a file.

    Raises:
        FlopbenchError: they cannot be read.
    """
    foreign.put(_read(file, device))
    return called(job)(report, *arguments)


def loaded(report: Report) -> None:
    """A job that comes to its end where the objects could be read."""


def _read(file: Path, device: DeviceKind) -> Mapping[str, Any]:
    """The objects in a file, those that lay on a GPU on `device`."""

    def place(storage: Any, was_on: str) -> Any:
        return storage.cuda() if device == "cuda" and was_on.startswith("cuda") else storage

    try:
        return torch.load(file, map_location=place, weights_only=False)
    except (Exception, SystemExit) as error:
        if out_of_memory(error):
            raise
        raise FlopbenchError(in_one_line(error)) from error


def _unwritable(objects: Mapping[str, Any], file: Path) -> str | None:
    """Why objects do not go into a file; None where they do and are in it now."""
    try:
        torch.save(dict(objects), file, pickle_module=cloudpickle, pickle_protocol=5)
    except Exception as error:
        where, reason = _culprit(objects) or ("", error)
        return f"{where or 'it'} does not pickle ({in_one_line(reason)})"
    return None


def _unreadable(apart: Apart) -> str | None:
    """Why a fresh process cannot read the file; None where it can."""
    outcome = apart(loaded, timeout=_PATIENCE)
    return None if outcome.kind == "done" else f"a fresh process cannot unpickle it ({outcome.value})"


def _culprit(objects: Mapping[str, Any]) -> tuple[str, Exception] | None:
    """What among the objects does not pickle, as narrowly as can be said (`Net.lock`), and why."""
    found, waiting, seen = None, list(objects.items()), set[int]()
    while waiting:
        where, one = waiting.pop(0)
        reason = None if id(one) in seen else _refusal(one)
        seen.add(id(one))
        if reason is not None:
            # The parts of what does not pickle alone are of interest.
            found, waiting = (where, reason), [(f"{where}.{name}", part) for name, part in parts_of(one)]
    return found


def _refusal(one: Any) -> Exception | None:
    """Why something does not pickle; its tensors do."""
    try:
        _Trial(io.BytesIO(), protocol=5).dump(one)
    except Exception as error:
        return error
    return None


class _Trial(cloudpickle.Pickler):
    """Pickles all but tensors, of which there may be gigabytes."""

    def persistent_id(self, obj: Any) -> str | None:
        return "tensor" if isinstance(obj, Tensor) else None
