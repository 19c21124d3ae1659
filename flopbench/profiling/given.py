"""`flopbench.profile`: a pair by its name, or networks that are given from Python, profiled."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

from flopbench.axis_values import ONE_CELL, AxisValue
from flopbench.cells import AXES
from flopbench.errors import FlopbenchError, NothingMeasuredError, unknown
from flopbench.modes import ENGINES, DeviceKind
from flopbench.pairs import Pair
from flopbench.profiling.measure import ProfileJob, profile_pair
from flopbench.profiling.predict import read_calibration
from flopbench.profiling.profiled import Profiled
from flopbench.runner.begin import device_kind
from flopbench.runner.benchmark import Given
from flopbench.runner.given import launcher_of
from flopbench.runner.sweep import check_cells, check_threads, probe_environment

# Seconds for both networks, each of which may have to be compiled.
_PATIENCE = 1800.0


def profile(
    baseline: str | Callable[..., Any],
    candidate: str | Callable[..., Any] | None = None,
    inputs: Any = None,
    *,
    loss: str | Callable[..., Any] | None = None,
    same: str | Callable[..., Any] | None = None,
    tolerance: float | None = None,
    perturb: bool | None = None,
    device: str | None = None,
    threads: int | None = None,
    seconds: float = 10.0,
    calibration: str | Path | None = None,
    trace: str | Path | None = None,
    stacks: str | Path | None = None,
    progress: bool | Callable[[str], object] = True,
    **axes: Unpack[AxisValue],
) -> Profiled:
    """Show where a pair's time goes, what the device allows, and what is missing, as `flopbench profile`.

        profiled = flopbench.profile("vit_s16.flop", batch_size=8)
        profiled = flopbench.profile(plain, mirrored, tokens, pass_="train", loss="loss")
        print(profiled)

    Networks that cannot be counted have their time by operator all the same, and no least times. What does
    not pickle is profiled in this process (see `flopbench.benchmark`).

    Args:
        baseline: a pair by its name, "vit_s16.flop" or "candidate@baseline"; or a network, as of
            `flopbench.benchmark`.
        candidate: the other network, where `baseline` is one.
        inputs, loss, same, tolerance: as of `flopbench.benchmark`.
        perturb: whether the networks get random weights first; by default those of a pair by its name do.
        device: "cpu" or "cuda"; by default a GPU if there is one.
        threads: that a CPU computes with; by default as many as torch takes.
        seconds: for timing the pair, and again for the profile of each network.
        calibration: a calibration.json whose peaks are believed; by default they are measured.
        trace: a file to write a Chrome trace of each network to, its role added to the name.
        stacks: the same of folded stacks, for a flame graph.
        progress: whether each phase is a line on stderr, or who is told of it instead.
        axes: the value of each axis, `batch_size` (by default how many `inputs` hold, else 4 on a CPU and 64
            on a GPU), `pass_` ("forward"), `dtype`, `mode` ("eager"), `image_size`, `num_classes`, `task`,
            `decoder`, `positions`, `width`, `depth`, `attention`, `memory_format`, `impl`.

    Raises:
        FlopbenchError: a mistake in what was given, or the device is not there.
        NothingMeasuredError: the networks fail, do not fit, or give what they must not.
    """
    known = {axis.field: axis for axis in AXES.values()}
    for name in axes.keys() - known.keys():
        raise unknown("argument", name, known)
    kind = device_kind(device, "device")
    if candidate is None:
        if not isinstance(baseline, str):
            raise FlopbenchError("one network is no pair: give a candidate, too")
        pair = Pair.of(*baseline.split("@", 1))
        baseline, candidate = pair.baseline, pair.candidate
        perturb = perturb is not False
    peaks = read_calibration(Path(calibration)).peaks if calibration else None
    check_threads(threads)
    kind = probe_environment(kind).device
    given = Given(
        baseline,
        candidate,
        inputs,
        pair={"loss": loss, "same": same, "tolerance": tolerance, "perturb": bool(perturb)},
        axes={
            **_usual(kind, (baseline, candidate), inputs),
            **{known[name].plural: (value,) for name, value in axes.items() if value is not None},
        },
    )
    (cell,) = given.suite.profile(kind).cells(kind)
    check_cells([cell])
    if cell.mode in ENGINES:
        raise FlopbenchError(
            f"what runs within {cell.mode} cannot be profiled: choose another --mode, such as compile"
        )
    files = [Path(file).resolve() if file else None for file in (trace, stacks)]
    tell = progress if callable(progress) else _on_stderr if progress else lambda line: None

    phases: list[str] = []

    def on_report(told: str, value: Any) -> None:
        # Both networks, and both times that they run, have the same phases.
        if told == "phase" and value not in phases:
            phases.append(value)
            tell(f"{cell.pair.spoken}: {value}")

    with launcher_of(given.objects, threads) as launch:
        outcome = launch.on(kind)(
            profile_pair,
            ProfileJob(cell, seconds, peaks, *files),
            timeout=_PATIENCE,
            on_report=on_report,
        )
        flags = launch.flags
    if outcome.kind == "usage":
        raise FlopbenchError(str(outcome.value))
    if outcome.kind != "done":
        raise NothingMeasuredError(f"{cell.pair.spoken}: {outcome.kind}: {outcome.value}")
    return Profiled(outcome.value.model_copy(update={"flags": flags}))


def _usual(device: DeviceKind, networks: tuple[Any, ...], inputs: Any) -> dict[str, Any]:
    """The values of the axes where neither networks nor inputs say them themselves."""
    usual = dict(ONE_CELL[device])
    if not (inputs is None or isinstance(inputs, str) or callable(inputs)):
        del usual["batch_sizes"]
    if not all(isinstance(network, str) for network in networks):
        del usual["dtypes"]
    return usual


def _on_stderr(line: str) -> None:
    # No console of rich's, which in a notebook makes of every line an output of its own.
    print(line, file=sys.stderr, flush=True)
