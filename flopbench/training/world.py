"""The processes that train or evaluate together: one by itself, or those that `torchrun` started."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, rendezvous  # pyright: ignore[reportPrivateImportUsage]

from flopbench.errors import ExitCode, FlopbenchError, gist, in_one_line
from flopbench.modes import DeviceKind
from flopbench.ranks import Place, claim, place
from flopbench.results.folder import RecordsFolder
from flopbench.runner.begin import device_kind
from flopbench.runner.here import as_it_was
from flopbench.runner.sweep import check_threads
from flopbench.timing.environment import choose_device

Value = TypeVar("Value")
Folder = TypeVar("Folder", bound=RecordsFolder[Any, Any])

# How long a process waits for another: one that compiles may keep the others waiting for minutes.
_PATIENCE = timedelta(minutes=10)
# Seconds that a process whose work failed waits for the others to let it go.
_LEAVING_SECONDS = 10.0


@dataclass(frozen=True)
class World:
    """This process among those that work together.

    Attributes:
        device: that it computes on.
        rank: its number, from 0.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def kind(self) -> DeviceKind:
        """Of the device."""
        return "cuda" if self.device.type == "cuda" else "cpu"

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, which all of them call."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def share(self, value: Value) -> Value:
        """What the first process has, in all of them."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, 0, device=self.device)
        return held[0]


@contextmanager
def world(kind: DeviceKind) -> Iterator[World]:
    """This process's world: of `torchrun` where that started it, by NCCL on GPUs and gloo on CPUs.

    Within it the first process alone prints to stdout and warns. Where one process fails, all end: that one
    with its error, the others without a word.

    Raises:
        FlopbenchError: no such device, more processes than GPUs, or torchrun's variables are wrong.
        SystemExit: another process failed.
    """
    choose_device(kind)
    if dist.is_initialized():
        # By whoever called, who also ends it.
        yield World(
            torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind),
            dist.get_rank(),
            dist.get_world_size(),
        )
        return
    where = place()
    if where is None:
        yield World(torch.device(kind))
        return
    device = _device(kind, where)
    store = _meet(device, where)
    with _one_speaks(where), _killable():
        try:
            yield World(device, where.rank, where.size)
        except BaseException as error:
            first = _fails_first(store)
            _leave(error if first else None)
            if not first:
                # What the failure of another has done to this one is nothing to tell.
                raise SystemExit(ExitCode.USAGE) from None
            claim(error)
            raise
        dist.destroy_process_group()


@contextmanager
def visited(device: str | None, threads: int | None) -> Iterator[World]:
    """The world of one call, after which this process is as it was (`as_it_was`).

    Args:
        device: cpu or cuda; None for a GPU if there is one.
        threads: that a CPU computes with; None for as many as torch takes.

    Raises:
        FlopbenchError: there is no such device, or there are fewer cores; as `world`.
    """
    check_threads(threads)
    kind = choose_device(device_kind(device, "device"))
    with as_it_was({}), world(kind) as here:
        if threads is not None:
            torch.set_num_threads(threads)
        yield here


def begun_together(
    kind: type[Folder], here: World, info: Any, results: Path | None, out: Path | None = None
) -> Folder:
    """A new folder, which the first process makes: `out`, or one under `results` (`create_under`)."""
    folder = None
    if here.first and out is not None:
        folder = kind.create(out, info.model_copy(update={"id": out.name}))
    elif here.first:
        folder = kind.create_under(results, info.id, info)
    path = here.share(folder and folder.path)
    assert path is not None
    return folder or kind(path, info)


def _device(kind: DeviceKind, where: Place) -> torch.device:
    """The device of this process, and of no other on this machine where it is a GPU.

    Raises:
        FlopbenchError: there are fewer GPUs than processes.
    """
    if kind == "cpu":
        return torch.device(kind)
    if where.local_size > (count := torch.cuda.device_count()):
        raise FlopbenchError(
            f"{where.local_size} processes on this machine and {count} GPU{'s' * (count != 1)}: "
            f"start torchrun with --nproc-per-node={count}"
        )
    return torch.device(kind, where.local_rank)


def _meet(device: torch.device, where: Place) -> Store:
    """Wait for the other processes; what all of them can write to and read.

    Raises:
        FlopbenchError: some did not come.
    """
    try:
        store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("flopbench", store),
            rank=where.rank,
            world_size=where.size,
            timeout=_PATIENCE,
            device_id=device if device.type == "cuda" else None,
        )
    except dist.DistError as error:
        raise FlopbenchError(f"the {where.size} processes did not meet: {gist(str(error))}") from error
    return store


def _fails_first(store: Store) -> bool:
    """Whether no other process has failed before this one, as far as can be known."""
    try:
        return store.add("failures", 1) == 1
    except dist.DistError:
        return True


def _leave(error: BaseException | None) -> None:
    """Leave the others in the middle of work, and wait for them for seconds, not for ever.

    Args:
        error: what to say if there is no time for more.
    """

    def give_up() -> None:
        if error is not None:
            print(f"flopbench: {in_one_line(error)}", file=sys.stderr, flush=True)
        os._exit(error.exit_code if isinstance(error, FlopbenchError) else ExitCode.INTERNAL)

    late = threading.Timer(_LEAVING_SECONDS, give_up)
    late.daemon = True
    late.start()
    # A connection that is lost already.
    with suppress(RuntimeError):
        dist.destroy_process_group()
    late.cancel()


@contextmanager
def _one_speaks(where: Place) -> Iterator[None]:
    """Within it, processes other than the first neither print to stdout nor warn."""
    with warnings.catch_warnings():
        if where.rank == 0:
            yield
            return
        warnings.simplefilter("ignore")
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield


@contextmanager
def _killable() -> Iterator[None]:
    """Within it SIGTERM, by which torchrun ends processes when one has failed, ends this one at once.

    Python would heed it only after the call that waits for the process that failed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
