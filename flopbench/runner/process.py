"""One job, one fresh process: a crash, a hang or a CUDA error ends that job alone.

Where the platform can fork, workers come from a fork server that has imported torch and nothing else
(no thread started, no CUDA context made), so a fresh process costs milliseconds instead of seconds.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as waited_for
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, NamedTuple

from flopbench.errors import FlopbenchError, in_one_line, out_of_memory, own_lines
from flopbench.runner.memory import oom_kills

OutcomeKind = Literal["done", "error", "oom", "usage", "crashed", "timeout"]


class Outcome(NamedTuple):
    """How a job ended: its result (`done`), or a line that says what happened."""

    kind: OutcomeKind
    value: Any


Report = Callable[[str, Any], None]

# Share of a GPU's memory; with less than this left, libraries cannot make their handles.
FULL = 0.02

# What ends a sweep in good order: Ctrl-C, `kill`, a terminal that is closed.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    # Killing a worker leaves its compilers' semaphores to the resource tracker, which clears them up; that
    # is what it is for, and no news to the user.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flopbench.runner.worker"])
    from multiprocessing import forkserver, resource_tracker

    # The server hands on what it starts with: what stops a sweep is for the parent alone, from a worker's
    # first moment. Starting the tracker lets it through again, so that comes first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def _interrupts_held() -> Iterator[Callable[[], None]]:
    """What has a handler among `STOPS` counts at calls of what this yields and at its end, nowhere else.

    Raised anywhere, it could leave a process behind of which nobody knows, and Python drops it where it
    comes within a finaliser. Only the main thread gets it, and only where it is not ignored or deadly: else
    nothing is changed.
    """
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {stop: handler for stop in STOPS if callable(handler := signal.getsignal(stop))}
    came: list[int] = []

    def let_through() -> None:
        while came:
            number = came.pop()
            handlers[number](number, None)

    for stop in handlers:
        signal.signal(stop, lambda number, frame: came.append(number))
    try:
        yield let_through
    finally:
        for stop, handler in handlers.items():
            signal.signal(stop, handler)
        let_through()


def run_job(
    job: Callable[..., Any] | str,
    *arguments: Any,
    timeout: float,
    on_report: Report = lambda kind, value: None,
    echo: bool = False,
) -> Outcome:
    """Call `job(report, *arguments)` in a fresh process and wait for its end.

    Args:
        job: an importable function, or its `module:name`, which spares this process its imports. It
            calls `report(kind, value)` to say how far it is.
        arguments: what it gets, pickled.
        timeout: seconds until the process is killed.
        on_report: called here with each report, and at least every 0.2 s with ("tick", None).
        echo: whether what the job printed goes to stderr here, once it is done.

    Returns:
        How it ended. An interrupt (Ctrl-C, or another of `STOPS` that has a handler) here kills the process
        and is raised again. Whatever the job started in its session ends with it.
    """
    with _interrupts_held() as let_through:

        def report(kind: str, value: Any) -> None:
            on_report(kind, value)
            let_through()

        return _run(job, arguments, timeout, report, echo)


def run_jobs(
    job: Callable[..., Any] | str,
    arguments: Sequence[tuple[Any, ...]],
    *,
    processes: int,
    timeout: float,
    on_report: Report = lambda kind, value: None,
) -> list[Outcome]:
    """`run_job` for each of `arguments`, in `processes` processes at a time.

    Args:
        job: as of `run_job`; what it reports is dropped.
        arguments: of each call.
        processes: how many work side by side.
        timeout: seconds for all of them together.
        on_report: called here several times a second with ("tick", None).

    Returns:
        How each ended, in the order of `arguments`; `timeout` also where it never began. An interrupt ends
        all of them, as it ends one.
    """
    deadline, given_up = time.monotonic() + timeout, threading.Event()

    def tick(kind: str, value: Any) -> None:
        if given_up.is_set():
            raise KeyboardInterrupt

    def run_one(given: tuple[Any, ...]) -> Outcome:
        left = deadline - time.monotonic()
        if left <= 0:
            return Outcome("timeout", "not begun")
        return run_job(job, *given, timeout=left, on_report=tick)

    with _interrupts_held() as let_through, ThreadPoolExecutor(processes) as pool:
        futures = [pool.submit(run_one, given) for given in arguments]
        try:
            while waited_for(futures, 0.2).not_done:
                on_report("tick", None)
                let_through()
        except BaseException:
            given_up.set()
            # The pool is left once all of its processes have ended.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _run(
    job: Callable[..., Any] | str, arguments: tuple[Any, ...], timeout: float, report: Report, echo: bool
) -> Outcome:
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    killed_before = oom_kills()
    with tempfile.TemporaryDirectory(prefix="flopbench-") as folder:
        log = Path(folder) / "output"
        process = context.Process(target=_serve, args=(sender, str(log), job, arguments), daemon=False)
        try:
            _start(process)
            sender.close()
            outcome = _wait(process, receiver, timeout, report)
        finally:
            ended = _kill(process)
            receiver.close()
        if outcome is None:
            return Outcome(*_cause_of_death(process.exitcode, log, killed_before))
        if outcome.kind == "timeout" and not ended:
            return Outcome("timeout", f"{outcome.value}; it does not end, and may keep the device's memory")
        if echo and outcome.kind == "done":
            sys.stderr.write(log.read_text(errors="replace"))
        return outcome


def _start(process: Any) -> None:
    try:
        process.start()
    except (EOFError, OSError) as error:
        raise FlopbenchError(f"a worker process could not start: {error or type(error).__name__}") from error


def _wait(process: Any, receiver: Connection, timeout: float, on_report: Report) -> Outcome | None:
    deadline = time.monotonic() + timeout
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return Outcome("timeout", f"stopped after {timeout:.0f} s")
        ready = wait([receiver, process.sentinel], min(0.2, remaining))
        if not ready:
            on_report("tick", None)
            continue
        if receiver not in ready:
            # Children that it left may hold the pipe's other end open; what it sent itself is in there.
            _end_session(process)
        try:
            kind, value = receiver.recv()
        except EOFError:
            process.join(5)
            return None
        if kind == "outcome":
            process.join(5)
            return Outcome(*value)
        on_report(kind, value)


def _kill(process: Any) -> bool:
    """End it with all that it started, and wait until they have given back what they held: the GPU's memory.

    Returns:
        Whether they have. One that hangs in the kernel does not end, whatever one sends it.
    """
    if process.pid is None:
        return True
    _end_session(process)
    process.kill()
    deadline = time.monotonic() + 30
    process.join(30)
    while _lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _lives(process.pid)


def _lives(group: int) -> bool:
    """Whether a process of a group runs. One that only waits for its parent to notice its end does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, own, *_ = stat.read_text().rpartition(")")[2].split()
            if int(own) == group and state not in "ZX":
                return True
    return False


def _end_session(process: Any) -> None:
    """End what the job started (compilers, the network's own processes), be it alive itself or not."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _cause_of_death(code: int | None, log: Path, oom_kills_before: int | None) -> tuple[OutcomeKind, str]:
    if code is not None and code < 0:
        stop = signal.Signals(-code)
        if stop is signal.SIGKILL:
            if oom_kills_before is not None and (oom_kills() or 0) > oom_kills_before:
                return "oom", "killed by signal 9 (SIGKILL), while the system killed for want of memory"
            return "crashed", "the process was killed by signal 9 (SIGKILL)"
        words = _last_line(log)
        # C++ ends the process where nobody catches its error.
        kind = "crashed" if out_of_memory(RuntimeError(words)) is None else "oom"
        return kind, f"the process died of {stop.name}{words}"
    return "crashed", f"the process ended with exit code {code}{_last_line(log)}"


def _last_line(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        if lines:
            return f": {lines[-1][:300]}"
    return ""


def _serve(sender: Connection, log: str, job: Callable[..., Any] | str, arguments: tuple[Any, ...]) -> None:
    """What the fresh process does: the job, with its output in a file and Ctrl-C left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # No terminal, whose closing would end it, and a group that ends with it.
    with suppress(OSError):
        os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGHUP))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    own = os.getpid()
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        called = resolve_name(job) if isinstance(job, str) else job
        outcome = Outcome("done", called(lambda kind, value: sender.send((kind, value)), *arguments))
    except BaseException as error:
        outcome = Outcome(*_describe(error))
    if os.getpid() != own:
        # The job forked, and its child came back here as well: the outcome is the process's own.
        os._exit(0)
    sys.stdout.flush()
    # What C code printed; leaving at once would drop it.
    with suppress(OSError, TypeError):
        ctypes.CDLL(None).fflush(None)
    sender.send(("outcome", tuple(outcome)))
    sender.close()
    # Leave at once: tearing down CUDA and compile workers takes seconds and can hang.
    os._exit(0)


def _end_with_parent() -> None:
    """Wait until the parent has ended, however, and end this process and all that it started."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _gpu_is_full() -> bool:
    """Whether next to nothing of the GPU's memory is left; False where this process uses none."""
    import torch

    with suppress(Exception):
        if torch.cuda.is_initialized():
            free, total = torch.cuda.mem_get_info()
            return free < FULL * total
    return False


def _describe(error: BaseException) -> tuple[OutcomeKind, str]:
    # A compiler that met one of ours while tracing wraps it and adds where.
    wraps = type(error).__module__.startswith("torch._dynamo")
    for own in (error, error.__cause__, error.__context__) if wraps else (error,):
        if isinstance(own, FlopbenchError):
            return "usage", str(own).partition("\n")[0]
    if (reason := out_of_memory(error, is_full=_gpu_is_full)) is not None:
        return "oom", reason
    traceback.print_exception(error)
    if isinstance(error, SystemExit):
        where = own_lines(error)
        return "error", f"the network left by sys.exit({error.code!r}){f' ({where})' if where else ''}"
    return "error", in_one_line(error)[:600]
