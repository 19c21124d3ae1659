"""Where worker processes come from, and what they begin with.

Where the platform can fork, workers come from a fork server that has imported torch and nothing else
(no thread started, no CUDA context made), so a fresh process costs milliseconds instead of seconds.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import wraps
from multiprocessing import spawn
from typing import Any

# What ends a sweep in good order: Ctrl-C, `kill`, a terminal that is closed.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

WORKER = "flopbench-worker"
"""The name of every worker process."""


def worker_context() -> Any:
    """The multiprocessing context in which workers are made."""
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


def _without_main(prepare: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """What a process is told to begin with; a worker is not told of the script that started all.

    It would run it once more: without an `if __name__ == "__main__"` in it, that begins the benchmark again.
    """

    @wraps(prepare)
    def prepared(name: str) -> dict[str, Any]:
        told = prepare(name)
        if name == WORKER:
            told.pop("init_main_from_path", None)
            told.pop("init_main_from_name", None)
        return told

    return prepared


# By the process's name, once for all: jobs are started from several threads, and the processes that others
# start in this one are not touched.
spawn.get_preparation_data = _without_main(spawn.get_preparation_data)
