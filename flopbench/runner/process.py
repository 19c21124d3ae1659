"""One job, one fresh process: a crash, a hang or a CUDA error ends that job alone."""

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as waited_for
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, NamedTuple, Protocol

from flopbench.errors import FlopbenchError, in_one_line, out_of_memory, own_lines
from flopbench.runner.memory import oom_kills
from flopbench.runner.start import STOPS, WORKER, worker_context
from flopbench.symmetries import registry

OutcomeKind = Literal["done", "error", "oom", "usage", "crashed", "timeout"]


class Outcome(NamedTuple):
    """How a job ended: its result (`done`), or a line that says what happened."""

    kind: OutcomeKind
    value: Any


Report = Callable[[str, Any], None]

# Share of a GPU's memory; with less than this left, libraries cannot make their handles.
FULL = 0.02


class Launch(Protocol):
    """How a job is called, and how its end is told: `run_job`, or another that does the same elsewhere."""

    def __call__(
        self, job: Callable[..., Any] | str, *arguments: Any, timeout: float, on_report: Report = ...
    ) -> Outcome:
        """See `run_job`."""
        ...


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
    threads: int | None = None,
) -> Outcome:
    """Call `job(report, *arguments)` in a fresh process and wait for its end.

    Args:
        job: an importable function, or its `module:name`, which spares this process its imports. It
            calls `report(kind, value)` to say how far it is.
        arguments: what it gets, pickled.
        timeout: seconds until the process is killed.
        on_report: called here with each report, and at least every 0.2 s with ("tick", None).
        echo: whether what the job printed goes to stderr here, once it is done.
        threads: that torch computes with on a CPU, by default as many as it takes.

    Returns:
        How it ended. An interrupt (Ctrl-C, or another of `STOPS` that has a handler) here kills the process
        and is raised again. Whatever the job started in its session ends with it.
    """
    with _interrupts_held() as let_through:

        def report(kind: str, value: Any) -> None:
            on_report(kind, value)
            let_through()

        return _run(job, arguments, timeout, report, echo, threads)


def run_jobs(
    job: Callable[..., Any] | str,
    arguments: Sequence[tuple[Any, ...]],
    *,
    processes: int,
    timeout: float,
    on_report: Report = lambda kind, value: None,
    launch: Launch = run_job,
) -> list[Outcome]:
    """`run_job` for each of `arguments`, in `processes` processes at a time.

    Args:
        job: as of `run_job`; what it reports is dropped.
        arguments: of each call.
        processes: how many work side by side.
        timeout: seconds for all of them together.
        on_report: called here several times a second with ("tick", None).
        launch: by which each is called.

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
        return launch(job, *given, timeout=left, on_report=tick)

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
    job: Callable[..., Any] | str,
    arguments: tuple[Any, ...],
    timeout: float,
    report: Report,
    echo: bool,
    threads: int | None,
) -> Outcome:
    context = worker_context()
    receiver, sender = context.Pipe(duplex=False)
    killed_before = oom_kills()
    with tempfile.TemporaryDirectory(prefix="flopbench-") as folder:
        log = Path(folder) / "output"
        process = context.Process(
            target=_serve,
            args=(sender, str(log), registry.pack(), job, arguments, threads),
            name=WORKER,
            daemon=False,
        )
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


def _serve(
    sender: Connection,
    log: str,
    symmetries: Mapping[str, bytes],
    job: Callable[..., Any] | str,
    arguments: tuple[Any, ...],
    threads: int | None,
) -> None:
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
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        registry.unpack(symmetries)
        outcome = Outcome("done", called(job)(lambda kind, value: sender.send((kind, value)), *arguments))
    except BaseException as error:
        outcome = describe(error)
        if outcome.kind == "error":
            traceback.print_exception(error)
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


def called(job: Callable[..., Any] | str) -> Callable[..., Any]:
    """The function that a job is, or is named by."""
    return resolve_name(job) if isinstance(job, str) else job


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


def describe(error: BaseException) -> Outcome:
    """What is told of a job that ended with an error."""
    # A compiler that met one of ours while tracing wraps it and adds where.
    wraps = type(error).__module__.startswith("torch._dynamo")
    for own in (error, error.__cause__, error.__context__) if wraps else (error,):
        if isinstance(own, FlopbenchError):
            return Outcome("usage", str(own).partition("\n")[0])
    if (reason := out_of_memory(error, is_full=_gpu_is_full)) is not None:
        return Outcome("oom", reason)
    if isinstance(error, SystemExit):
        where = own_lines(error)
        return Outcome(
            "error", f"the network left by sys.exit({error.code!r}){f' ({where})' if where else ''}"
        )
    return Outcome("error", in_one_line(error)[:600])
