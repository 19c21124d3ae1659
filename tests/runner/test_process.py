"""A job in a fresh process: its result, its reports, and every way to end badly."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import count, takewhile
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest

from flopbench.errors import FlopbenchError
from flopbench.runner.process import Report, run_job, run_jobs
from flopbench.runner.start import STOPS, WORKER


def double(report: Report, value: int) -> int:
    report("phase", "doubling")
    return 2 * value


def process_id(report: Report) -> int:
    return os.getpid()


def complain(report: Report) -> None:
    raise FlopbenchError("no such thing")


def fail(report: Report) -> None:
    raise ValueError("first line\nsecond line")


def fail_because(report: Report) -> None:
    try:
        complain(report)
    except FlopbenchError as error:
        raise ValueError("another thing") from error


def die(report: Report, number: int) -> None:
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), number)


def leave(report: Report) -> None:
    os._exit(3)


def sys_exit(report: Report) -> None:
    sys.exit(3)


def fork_and(report: Report, ends: bool) -> int:
    """Leave a child that outlives what started it, which ends at once or returns as the child does."""
    report("child", os.getpid())
    child = os.fork()
    if child == 0 and ends:
        time.sleep(60)
    elif ends:
        report("child", child)
        os._exit(3)
    return child


def want_memory(report: Report) -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 bytes")


def want_gpu_memory(report: Report) -> None:
    try:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    except RuntimeError as error:
        raise ValueError("autotuning failed") from error


def abort_for_want_of_memory(report: Report) -> None:
    print("  what():  std::bad_alloc", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGABRT)


def start_and_return(report: Report) -> int:
    return subprocess.Popen(["sleep", "60"]).pid


def sleep(report: Report) -> None:
    time.sleep(60)


def test_a_result_comes_back_with_the_reports_before_it():
    reports: list[tuple[str, object]] = []
    outcome = run_job(double, 21, timeout=60, on_report=lambda *report: reports.append(report))
    assert outcome == ("done", 42)
    assert ("phase", "doubling") in reports


def test_every_job_has_a_process_of_its_own():
    ids = {run_job(process_id, timeout=60).value for _ in range(2)}
    assert len(ids | {os.getpid()}) == 3


@pytest.mark.parametrize(
    ("job", "arguments", "kind", "text"),
    [
        (complain, (), "usage", "no such thing"),
        (fail, (), "error", "ValueError: first line (test_process.py:"),
        (fail_because, (), "error", "ValueError: another thing"),
        (die, (signal.SIGSEGV,), "crashed", "SIGSEGV: last words"),
        (die, (signal.SIGKILL,), "crashed", "the process was killed by signal 9 (SIGKILL)"),
        (die, (signal.SIGABRT,), "crashed", "SIGABRT"),
        (sys_exit, (), "error", "the network left by sys.exit(3) (test_process.py:"),
        (leave, (), "crashed", "exit code 3"),
        (want_memory, (), "oom", "can't allocate memory"),
        (want_gpu_memory, (), "oom", "CUBLAS_STATUS_ALLOC_FAILED"),
        (abort_for_want_of_memory, (), "oom", "std::bad_alloc"),
    ],
)
def test_a_bad_end_is_told_in_one_line(job, arguments, kind: str, text: str):
    outcome = run_job(job, *arguments, timeout=60)
    assert outcome.kind == kind
    assert text in outcome.value
    assert "\n" not in outcome.value


def test_a_hang_is_ended():
    start = time.monotonic()
    outcome = run_job(sleep, timeout=0.5)
    assert outcome.kind == "timeout"
    assert time.monotonic() - start < 30


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(processes: list[int]) -> bool:
    """Whether all have ended, or do so in a while."""
    deadline = time.monotonic() + 30
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, processes))


def test_a_process_that_leaves_a_child_is_seen_to_end_and_the_child_too():
    told: list[int] = []
    outcome = run_job(
        fork_and, True, timeout=50, on_report=lambda kind, value: told.append(value) if value else None
    )
    assert outcome == ("crashed", "the process ended with exit code 3")
    assert len(told) == 2
    assert ended(told)


def test_the_next_job_begins_when_all_of_the_last_one_has_ended():
    outcome = run_job(start_and_return, timeout=60)
    assert outcome.kind == "done"
    assert not alive(outcome.value)


def test_a_process_that_cannot_be_ended_is_told_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flopbench.runner.process._kill", lambda process: process.kill())
    outcome = run_job(sleep, timeout=0.5)
    assert outcome.kind == "timeout"
    assert outcome.value.endswith("it does not end, and may keep the device's memory")


def test_of_a_job_that_forks_the_outcome_is_its_own():
    outcome = run_job(fork_and, False, timeout=60)
    assert outcome.kind == "done"
    assert outcome.value > 0


def test_want_of_memory_is_said_where_the_system_says_so(monkeypatch: pytest.MonkeyPatch):
    counts = iter([4, 5])
    monkeypatch.setattr("flopbench.runner.process.oom_kills", lambda: next(counts))
    outcome = run_job(die, signal.SIGKILL, timeout=60)
    assert outcome.kind == "oom"
    assert "for want of memory" in outcome.value


PARENT = """if True:
    import time
    from tests.runner.test_process import start_and_sleep
    from flopbench.runner.process import run_job

    def tell(kind, value):
        if kind == "ids":
            print(*value, flush=True)

    if __name__ == "__main__":
        run_job(start_and_sleep, timeout=60, on_report=tell)
"""


def start_and_sleep(report: Report) -> None:
    child = subprocess.Popen(["sleep", "60"])
    report("ids", (os.getpid(), os.getppid(), child.pid))
    time.sleep(60)


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGTERM, signal.SIGHUP))],
)
def test_nothing_outlives_the_parent_however_it_ends(tmp_path: Path, number: signal.Signals):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=root, text=True
    ) as parent:
        assert parent.stdout is not None
        started = [int(word) for word in parent.stdout.readline().split()]
        assert len(started) == 3
        assert all(map(alive, started))
        parent.send_signal(number)
        assert ended(started)


def meet(report: Report, folder: Path, mine: str, other: str) -> str:
    """Wait for another that works at the same time."""
    (folder / mine).touch()
    while not (folder / other).exists():
        time.sleep(0.01)
    return mine


def test_jobs_run_side_by_side_and_end_in_their_order(tmp_path: Path):
    pairs = [(tmp_path, "a", "b"), (tmp_path, "b", "a"), (tmp_path, "c", "a")]
    ticks: list[str] = []
    outcomes = run_jobs(
        meet, pairs, processes=2, timeout=100, on_report=lambda kind, value: ticks.append(kind)
    )
    assert outcomes == [("done", "a"), ("done", "b"), ("done", "c")]
    assert set(ticks) <= {"tick"}


def test_of_jobs_one_fails_alone_and_time_is_for_all_together():
    kinds = [outcome.kind for outcome in run_jobs(die, [(signal.SIGSEGV,), (0,)], processes=2, timeout=60)]
    assert kinds[0] == "crashed"
    begun = time.monotonic()
    outcomes = run_jobs(sleep, [()] * 3, processes=1, timeout=0.5)
    assert [outcome.kind for outcome in outcomes] == ["timeout"] * 3
    assert time.monotonic() - begun < 30


def tell_and_sleep(report: Report, folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def test_an_interrupt_ends_all_jobs(tmp_path: Path):
    def interrupt(kind: str, value: object) -> None:
        if len(list(tmp_path.iterdir())) == 2:
            signal.raise_signal(signal.SIGINT)

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(tell_and_sleep, [(tmp_path,)] * 3, processes=2, timeout=100, on_report=interrupt)
    assert time.monotonic() - begun < 50
    workers = [int(file.name) for file in tmp_path.iterdir()]
    assert len(workers) == 2
    assert ended(workers)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_a_process_starts_leaves_none_behind(monkeypatch: pytest.MonkeyPatch):
    started = []

    def interrupted(process: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        process.start()
        started.append(process)

    monkeypatch.setattr("flopbench.runner.process._start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_job(sleep, timeout=60)
    assert [process.exitcode for process in started] == [-signal.SIGKILL]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupt_at(line: int) -> str:
    """Run a job with Ctrl-C at this line of all that this process runs for it: what became of it."""
    passed = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal passed
        if event == "line":
            passed += 1
            if passed == line:
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        run_job(double, 1, timeout=60)
    except KeyboardInterrupt:
        return "counted"
    finally:
        sys.settrace(None)
    return "lost" if passed >= line else "not reached"


def test_an_interrupt_is_not_lost_wherever_it_comes(monkeypatch: pytest.MonkeyPatch):
    # Their many lines are of files, and none of a process.
    monkeypatch.setattr("flopbench.runner.process.oom_kills", lambda: None)
    monkeypatch.setattr("flopbench.runner.process._lives", lambda group: False)
    run_job(double, 1, timeout=60)  # which starts the server
    ends = list(takewhile(lambda end: end != "not reached", map(interrupt_at, count(1, 67))))
    assert set(ends) == {"counted"}
    assert len(ends) > 15


def test_an_ignored_interrupt_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ended = run_job(
            double, 1, timeout=60, on_report=lambda kind, value: signal.raise_signal(signal.SIGINT)
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == ("done", 2)


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="no fork server")
def test_a_worker_gets_no_ctrl_c_from_its_first_moment():
    code = """if True:
        import signal
        from flopbench.runner.start import worker_context

        pool = worker_context().Pool(1)
        print(*sorted(map(int, pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, ())))))
        # To terminate it would take a SIGTERM.
        pool.close()
        pool.join()
        print(*signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stops = " ".join(str(stop.value) for stop in sorted(STOPS))
    assert done.stdout.splitlines() == [stops, ""]


UNGUARDED = """
print("began", flush=True)
import beside
from flopbench.runner.process import run_job

print(*run_job(beside.job, timeout=60))
print(*run_job("beside:job", timeout=60))
"""


@pytest.mark.parametrize(
    "how", ["script", *(pytest.param(how, marks=pytest.mark.slow) for how in ("-c", "stdin", "notebook"))]
)
def test_a_script_without_a_guard_is_run_once(tmp_path: Path, how: str):
    (tmp_path / "beside.py").write_text("def job(report):\n    return 7\n")
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    root = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = {
        "script": [str(script)],
        "-c": ["-c", UNGUARDED],
        "stdin": ["-"],
        # A kernel's main module is made, and came from no file.
        "notebook": ["-c", f"import sys, types; m = sys.modules['__main__'] = types.ModuleType('__main__'); "
                           f"exec({UNGUARDED!r}, vars(m))"],
    }[how]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=root,
        cwd=tmp_path if how != "script" else None,
        input=UNGUARDED if how == "stdin" else None,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["began", "done 7", "done 7"]


def test_processes_of_others_are_told_of_the_script(monkeypatch: pytest.MonkeyPatch):
    main = type(sys)("__main__")
    main.__file__ = "/script.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert spawn.get_preparation_data("Process-1")["init_main_from_path"] == "/script.py"
    assert "init_main_from_path" not in spawn.get_preparation_data(WORKER)
