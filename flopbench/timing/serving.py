"""Serving figures: what counts where a network answers single requests, beside images per second.

Latency: the time from a call to the result being there. One call at a time, each waited for before the next
is made, so that nothing is ever queued: on CUDA it is the host's wall clock around the call and a
synchronisation. The input lies on the device and the output stays there. On a GPU at a small batch it is what
the host takes to dispatch a call as much as what the device takes to run it, which throughput does not show.

Load: from a file with the weights to a network on the device that is ready for its first call. That is
building it (flopbench's own without values, others as they build themselves), reading the file,
`load_state_dict`, and computing the weights that layers compute with (`symmetries.fold`). Of an object that
was given from Python nobody knows how it is built: weights are read and loaded into a copy. This process has
written the file just before, so it comes from memory, not from the disk: a cold start takes longer by the
file's size over the disk's speed.

Size on disk: of that file, as `torch.save` writes the `state_dict` in the cell's dtype. What is shared is in
it once. It holds the weights that were learnt, and not those that layers compute from them.

First call: of the first in a fresh process, what it compiles and looks for included (`Bench.first_seconds`).
What any network starts (the libraries, the compiler) has been started before. The baseline's comes before the
candidate's: kernels that both launch are loaded by a GPU's driver in the baseline's alone.
"""

import copy
import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flopbench.cells import Cell
from flopbench.errors import in_one_line
from flopbench.models.catalog import parse_name
from flopbench.results.percentiles import PERCENTILES, samples_needed
from flopbench.symmetries import fold
from flopbench.timing.clock import CLOCKS, Clock, uncollected
from flopbench.timing.sampling import ROLES, ROUND
from flopbench.timing.statistics import MIN_ROUNDS
from flopbench.timing.workload import Workload, build_model, new_model

SHARE = 0.5
"""Of a cell's seconds of sampling, what single calls get at least; also what sampling leaves."""

# Of each network, in turn: the first of a process imports what loading needs.
LOADS = 3


class Stored(NamedTuple):
    """Weights in a file: its size, seconds of each time that they were loaded, or why that cannot be."""

    disk_bytes: int | None = None
    loads: tuple[float, ...] = ()
    problem: str = ""

    @property
    def load_seconds(self) -> float | None:
        """Of a typical time; None where they could not be loaded."""
        return None if self.problem or not self.loads else median(self.loads)


def stored(cell: Cell) -> dict[str, Stored]:
    """Both models of a cell, saved and loaded: by role. To be called before anything else holds them.

    A model without weights has no figures, and none that cannot be saved or loaded; `problem` says why then.
    """
    device, clock = torch.device(cell.device), CLOCKS[cell.device]()
    names = dict(zip(ROLES, (cell.pair.baseline, cell.pair.candidate), strict=True))
    models = {role: build_model(name, cell, device, ROLES.index(role)) for role, name in names.items()}
    with TemporaryDirectory(prefix="flopbench-") as folder:
        files = {role: Path(folder) / f"{role}.pt" for role in ROLES}
        found = {role: _saved(model, files[role]) for role, model in models.items()}
        for role in ROLES * LOADS:
            if found[role].disk_bytes is None or found[role].problem:
                continue
            try:
                seconds = _load_seconds(clock, files[role], models[role], names[role], cell)
                found[role] = found[role]._replace(loads=(*found[role].loads, seconds))
            except Exception as error:
                found[role] = found[role]._replace(problem=f"cannot be loaded: {in_one_line(error)}")
    del models
    # The first calls are to be those of a process that has not held all this.
    gc.collect()
    if cell.device == "cuda":
        torch.cuda.empty_cache()
    return found


def _saved(model: nn.Module, file: Path) -> Stored:
    try:
        state = model.state_dict()
        if not any(isinstance(value, Tensor) for value in state.values()):
            return Stored()
        torch.save(state, file)
    except Exception as error:
        return Stored(problem=f"cannot be saved: {in_one_line(error)}")
    return Stored(file.stat().st_size)


def _load_seconds(clock: Clock, file: Path, model: nn.Module, name: str, cell: Cell) -> float:
    """Seconds from the file to a network like `model`, which stays as it is."""
    device = torch.device(cell.device)
    copied = copy.deepcopy(model) if parse_name(name).given else None
    with uncollected():
        clock.synchronise()
        start = clock.now()
        network = new_model(name, cell, device, values=False) if copied is None else copied
        # A new network takes over the tensors that are read, so it need not have any yet.
        network.load_state_dict(torch.load(file, map_location=device), assign=copied is None)
        fold(network.to(device).eval())
        clock.synchronise()
        return clock.now() - start


def single_calls(
    clock: Clock, workloads: Mapping[str, Workload], pace: Mapping[str, float], seconds: float
) -> dict[str, list[float]]:
    """Latencies of both models in alternating blocks A B B A, by role, in seconds.

    A block after one of the other model begins with a call that is not timed, for what the other left in the
    caches. It ends when every percentile of `PERCENTILES` has its interval, or before a round would end after
    so many seconds; there is one round at least. No garbage is collected in a timed call.

    Args:
        clock: of the device.
        workloads: the warm models by role.
        pace: seconds of a call with what is prepared for it, by role.
        seconds: how long it may take.
    """
    needed = max(map(samples_needed, PERCENTILES))
    a_round = 2 * sum(max(pace[role], 1e-9) for role in ROLES)
    # Drift is slower than a round, however many calls there will be.
    calls = max(1, min(-(-needed // (2 * MIN_ROUNDS)), int(seconds / (MIN_ROUNDS * a_round))))
    found: dict[str, list[float]] = {role: [] for role in ROLES}
    start, previous = clock.now(), ""
    while True:
        begun = clock.now()
        for role in ROUND:
            if role != previous:
                workloads[role].run()
            with uncollected():
                found[role] += _one_by_one(clock, workloads[role], calls)
            previous = role
        now = clock.now()
        if min(map(len, found.values())) >= needed or now - start + now - begun > seconds:
            return found


def _one_by_one(clock: Clock, workload: Workload, calls: int) -> Iterator[float]:
    for _ in range(calls):
        prepared: Any = workload.prepare()
        clock.synchronise()
        start = clock.now()
        workload.step(prepared)
        clock.synchronise()
        yield clock.now() - start
