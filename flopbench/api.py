"""The functions of `import flopbench`: what the commands do, in a few lines of Python.

The commands are built on these. Nothing here measures or counts: each function reads what it is given and
hands it to the room that does. Imports no torch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from flopbench.axis_values import AxisValues, NetworkValue
from flopbench.errors import FlopbenchError, Interrupted, unknown
from flopbench.modes import Pass
from flopbench.report.result import Result
from flopbench.results import Run
from flopbench.suites import Suite, Variant

if TYPE_CHECKING:
    from flopbench.flops.command import Counts
    from flopbench.regression.decision import Comparison
    from flopbench.report.reported import Reported
    from flopbench.runner.sweep import Observer

RunLike = str | Path | Run | Result
"""A run, by the path of its folder or as an object."""


def run_suite(
    suite: str | Path | Suite | None = None,
    *,
    device: str | None = None,
    variant: Variant | None = None,
    pairs: Sequence[str] = (),
    replicates: int | None = None,
    precision: float | None = None,
    cell_seconds: float | None = None,
    serving: bool | None = None,
    budget: float | str | None = None,
    shard: tuple[int, int] | None = None,
    threads: int | None = None,
    results: str | Path | None = "results",
    resume: str | Path | None = None,
    progress: "bool | Observer" = True,
    command: str | None = None,
    **axes: Unpack[AxisValues],
) -> Result:
    """Measure a suite: time each of its pairs, each cell in a fresh process, as `flopbench run` does.

        result = flopbench.run_suite("vit", variant="quick", pairs=["vit_s16.flop"], batch_sizes=[1, 4])
        print(result)

    Args:
        suite: the name of a suite that ships with flopbench, the path of a TOML file, or a `Suite`; vit by
            default.
        device: "cpu" or "cuda"; by default a GPU if there is one.
        variant: "quick", a first look, or "full", the long sweep; by default the usual profile.
        pairs: only these, e.g. "vit_s16.flop" or "candidate@baseline"; by default those of the suite.
        replicates: fresh processes per cell. Here and below, None is what the suite says.
        precision: relative half-width of the speed-up's 95 % interval at which a cell is done.
        cell_seconds: seconds of sampling per cell, at most.
        serving: whether latencies of single calls, load time and size on disk are measured, too.
        budget: for the whole run, in seconds or as "90s", "5m", "1.5h"; what does not fit is skipped.
        shard: (i, n): only every n-th cell from the i-th on, for n machines.
        threads: that a CPU computes with; by default as many as torch takes.
        results: the folder that the run's folder goes to. None: a temporary one, which lasts as long as the
            result; see `Result.save`.
        resume: a run folder to go on with, as it was begun; what else is given is refused, but `suite`, which
            has to be the same.
        progress: whether a line per cell goes to stderr, or who watches instead.
        command: what the run records as its origin; by default this call.
        axes: values of what cells vary in, instead of the suite's: `batch_sizes`, `passes`, `dtypes`,
            `modes`, `image_sizes`, `num_classes`, `tasks`, `decoders`, `widths`, `depths`, `attention`,
            `positions`, `memory_formats`, `impls`.

    Returns:
        The run that was measured.

    Raises:
        FlopbenchError: a mistake in what was given, or the device is not there.
        NothingMeasuredError: no cell ended well.
        Interrupted: Ctrl-C; every cell that was finished is in the run folder, and in `result`.
    """
    from flopbench.runner.begin import Request, begin, device_kind, parse_duration, read_suite
    from flopbench.runner.begin import resume as resumed
    from flopbench.runner.sweep import launcher, sweep

    seconds = parse_duration(budget, "budget") if isinstance(budget, str) else budget
    changes: dict[str, Any] = {
        "pairs": tuple(pairs),
        **axes,
        "replicates": replicates,
        "precision": precision,
        "cell_seconds": cell_seconds,
        "serving": serving,
        "budget_seconds": seconds,
    }
    launch = launcher(threads)
    kind = device_kind(device, "device")
    chosen = None if suite is None else read_suite(suite)
    if resume is not None:
        others = {**changes, "variant": variant, "shard": shard}
        given = [name for name, value in others.items() if value not in (None, ())]
        run = resumed(Path(resume), chosen, given, launch)
    else:
        request = Request(chosen or read_suite("vit"), variant, changes, shard)
        called = {"device": kind, "variant": variant, "shard": shard, **changes}
        command = command or _call("run_suite", [repr(request.suite.name)], called)
        folder = None if results is None else Path(results)
        run = begin(request, kind, folder, command=command, launch=launch)
    result = Result([run])
    try:
        with _watched(progress) as observer:
            sweep(run, observer, launch=launch)
    except KeyboardInterrupt:
        go_on = f"flopbench.run_suite(resume={str(run.path)!r})"
        raise Interrupted(result, f"{run.path}: go on with {go_on}") from None
    return result


def benchmark(
    baseline: str | Callable[..., Any],
    candidate: str | Callable[..., Any] | Mapping[str, str | Callable[..., Any]],
    inputs: Any = None,
    *,
    loss: str | int | Callable[..., Any] | None = None,
    same: str | int | Callable[..., Any] | None = None,
    tolerance: float | None = None,
    perturb: bool = False,
    devices: str | Sequence[str] | None = None,
    precision: float | None = None,
    cell_seconds: float | None = None,
    replicates: int | None = None,
    serving: bool | None = None,
    budget: float | str | None = None,
    threads: int | None = None,
    progress: "bool | Observer" = True,
    **axes: Unpack[AxisValues],
) -> Result:
    """Time two networks of your own against one another, or several against one.

        result = flopbench.benchmark(plain, mirrored, torch.randn(8, 3, 224, 224))
        print(result)

    Each cell is measured in a fresh process, which gets the networks from a file: their weights as they are,
    classes and functions of a script or notebook too. What does not pickle is measured in this process, by
    the same steps, and every record has a flag `in-process` that says why; networks, random numbers and
    switches of torch are left as they were, and what `torch.compile` had compiled is compiled anew when it is
    called next.

    Args:
        baseline: a `torch.nn.Module`, a function, or the name of a model: "vit_s16", "timm:NAME",
            "package.module:callable".
        candidate: another, or a dict of several by name.
        inputs: what both are called with: a tensor, a tuple of arguments, a dict of keyword arguments,
            `flopbench.Inputs`, or a function of the batch size that returns one of these. What the tensors
            were computed from is left behind. By default images `[B, 3, H, W]` of each of `image_sizes`.
        loss: what the backward and train passes differentiate: a function of the output and the
            `flopbench.Inputs`, or the key, attribute or index of a part of the output.
        same: what of the outputs has to be equal: "output" for all of it, a part, or a function of both
            outputs (the baseline's first) that says so. By default two networks are not held to be equal.
        tolerance: largest difference of what is the `same`, relative to its root mean square.
        perturb: whether the networks get random weights first. With names alone, too, they keep their own.
        devices: "cpu", "cuda" or both, each a run of its own; by default a GPU if there is one.
        precision: relative half-width of the speed-up's 95 % interval at which a cell is done; by default
            0.02. An interval ten times as wide is `not resolved`.
        cell_seconds: seconds of sampling per cell, at most; 5 by default.
        replicates: fresh processes per cell; 1 by default.
        serving: whether latencies of single calls, load time and size on disk are measured, too.
        budget: for each run, in seconds or as "90s", "5m", "1.5h"; what does not fit is skipped.
        threads: that a CPU computes with; by default as many as torch takes.
        progress: whether a line per cell goes to stderr, or to the output of a notebook's cell; or who
            watches instead.
        axes: values of what cells vary in, one or several: `batch_sizes` (by default how many `inputs` hold,
            else 1 and 16), `passes` ("forward"), `dtypes` (by default what most of the weights are in, and
            nothing is cast), `modes` ("eager"), `image_sizes`, `memory_formats`, `impls` and all of suites.

    Returns:
        A run per device, in temporary folders that last as long as the result; see `Result.save`.

    Raises:
        FlopbenchError: a mistake in what was given, or a device is not there.
        NothingMeasuredError: no cell ended well; it says why.
        Interrupted: Ctrl-C; its `result` holds every cell that was finished.
    """
    from flopbench.runner.begin import parse_duration
    from flopbench.runner.benchmark import Given, devices_of, measure
    from flopbench.runner.given import launcher_of
    from flopbench.runner.sweep import check_threads

    check_threads(threads)
    seconds = parse_duration(budget, "budget") if isinstance(budget, str) else budget
    pair: dict[str, Any] = {"loss": loss, "same": same, "tolerance": tolerance, "perturb": perturb}
    how = {
        "precision": precision,
        "cell_seconds": cell_seconds,
        "replicates": replicates,
        "serving": serving,
    }
    given = Given(baseline, candidate, inputs, pair=pair, axes=axes, **how, budget_seconds=seconds)
    chosen = devices_of(devices)
    networks = {"baseline": baseline, "candidate": candidate} | ({} if inputs is None else {"inputs": inputs})
    first = [repr(value) if isinstance(value, str) else name for name, value in networks.items()]
    options = {**pair, "perturb": perturb or None, "devices": devices, **axes, **how}
    options |= {"budget": budget, "threads": threads}
    command = _call("benchmark", first, options)
    runs: list[Run] = []
    try:
        with launcher_of(given.objects, threads) as launch, _watched(progress) as observer:
            measure(given, chosen, launch, command, observer, runs)
    except KeyboardInterrupt:
        if not runs:
            raise
        where = "the `result` of this exception (in a notebook: sys.last_value.result)"
        raise Interrupted(Result(runs), where) from None
    return Result(runs)


def load_run(*paths: str | Path) -> Result:
    """Open runs that were measured before, several side by side.

        result = flopbench.load_run("results/vit-cpu-20261127-041710")
        result.frame().groupby("pair")["speedup"].max()

    Args:
        paths: run folders, or folders of run folders.

    Raises:
        FlopbenchError: one is no run, or two are the same.
    """
    return Result([Run.open(folder) for path in paths for folder in _folders(Path(path))])


def load(*paths: str | Path) -> "Reported":
    """Open what was measured before, whatever it is; several of one kind side by side.

        race = flopbench.load("results/race-small-cpu-20261127-190000")
        print(race)

    Args:
        paths: folders of runs, races, evaluations or trainings, or folders of such folders.

    Returns:
        A `Result`, `RaceResult`, `Evaluations` or `Trainings`: each prints itself and has `.frame()`,
        `.plot()` and `.report()`.

    Raises:
        FlopbenchError: one holds nothing that was measured, or not all are of one kind, or two are the same.
    """
    from flopbench.report.opening import opened

    return opened(*paths)


def compare_runs(
    base: RunLike, new: RunLike, *, suite: str | Path | None = None, metrics: Sequence[str] = ()
) -> "Comparison":
    """Hold a run against an earlier one, cell by cell: pass, fail, ambiguous or missing.

        comparison = flopbench.compare_runs("results/before", "results/after", metrics=["speedup"])
        assert comparison.outcome == "pass", comparison

    Args:
        base: the run before, or a JSON file of pytest-benchmark.
        new: the same kind, after.
        suite: the suite whose minimum effects apply; by default that of `new`, where it is known.
        metrics: only these figures: "speedup", "throughput", "peak_memory", "macs"; by default all.

    Raises:
        FlopbenchError: not found, of different kinds, not comparable, or a metric is unknown.
    """
    from flopbench.regression.sources import compare_sources

    suite = None if suite is None else str(suite)
    return compare_sources(_path(base), _path(new), suite=suite, metrics=metrics)


def count_flops(
    network: Any,
    inputs: Any = None,
    *,
    baseline: Any = None,
    loss: "str | Callable[..., Any] | None" = None,
    by: Literal["layer", "operator"] = "layer",
    depth: int = 2,
    pass_: Pass = "forward",
    batch_size: int | None = None,
    image_size: int | tuple[int, int] = 224,
    channels: int = 3,
    dtype_bytes: int | None = None,
    paper: bool = False,
    **axes: Unpack[NetworkValue],
) -> "Counts":
    """Count MACs three ways, operations, bytes and parameters, as `flopbench flops` does.

        counts = flopbench.count_flops(network, (tokens, mask))
        counts.macs, counts.frame()

    A network is left as it was: its weights, mode, buffers, gradients and device. It is laid out without
    values, which costs neither memory nor arithmetic; where its path depends on values it runs, and a note
    says so.

    Args:
        network: a `torch.nn.Module`, a function, or a name: `vit_b16`; `vit_b16.flop`, which is counted
            beside its plain twin; `CANDIDATE@BASELINE`, `timm:NAME`, `package.module:callable`. Somebody
            else's network that is named is counted in a process of its own.
        inputs: what it is called with: a tensor, a tuple of arguments, a dict of keyword arguments,
            `flopbench.Inputs`, or a function of the batch size that makes them, or the name of one,
            `package.module:function`. By default images.
        baseline: another network, counted beside it.
        loss: what the backward and train passes differentiate: a function of the output and the
            `flopbench.Inputs`, or the name of one, or of a part of the output; by default all of the output.
        by: whether rows are layers or operators.
        depth: levels of layers.
        pass_: "forward"; "backward", the gradients alone; "train", both and a step of AdamW.
        batch_size: of images, or of what `inputs` makes.
        image_size: of images, in pixels, or (height, width).
        channels: of images.
        dtype_bytes: bytes per element of floating point; by default that of the network's weights.
        paper: whether the paper's sum of MACs and elementwise operations is told, too.
        axes: what a network of flopbench's is built with, as cells have it: `task="segmentation"`,
            `decoder="conv"`, `num_classes=150`, `positions="rope"`, `width`, `attention`.

    Returns:
        The counts, which show themselves: `.macs`, `.ratio`, `.frame()`, `.text("markdown")`, `.notes()`.

    Raises:
        FlopbenchError: an unknown name or axis, inputs that the network does not take, a pass that cannot be
            counted, or counters that disagree about a network of flopbench's own.
    """
    from flopbench.runner.counting import count_given

    known = NetworkValue.__annotations__
    for name in axes.keys() - known.keys():
        raise unknown("argument", name, known)
    return count_given(
        network,
        inputs,
        baseline=baseline,
        loss=loss,
        values={**axes, "pass_": pass_, "image_size": image_size},
        by=by,
        depth=depth,
        batch_size=batch_size,
        channels=channels,
        dtype_bytes=dtype_bytes,
        paper=paper,
    )


def _folders(path: Path) -> list[Path]:
    """The folder of a run itself, or those of the runs that it holds."""
    within = [] if (path / "run.json").is_file() else sorted(file.parent for file in path.glob("*/run.json"))
    return within or [path]


def _path(run: RunLike) -> Path:
    if isinstance(run, Result):
        if len(run.runs) != 1:
            raise FlopbenchError(f"one run is compared with one, got {len(run.runs)}: give one of `.runs`")
        run = run.runs[0]
    return run.path if isinstance(run, Run) else Path(run)


def _call(function: str, first: list[str], arguments: dict[str, Any]) -> str:
    """How a run says that it was called from Python; an object stands by the argument's name."""
    given = [
        f"{name}={name if callable(value) else repr(value)}"
        for name, value in arguments.items()
        if value is not None and value != () and value != []
    ]
    return f"flopbench.{function}({', '.join([*first, *given])})"


@contextmanager
def _watched(progress: "bool | Observer") -> "Iterator[Observer]":
    """Who watches a sweep: a display on stderr, nobody, or who was given."""
    from rich.console import Console

    from flopbench.runner.progress import progress_for

    if not isinstance(progress, bool):
        yield progress
        return
    with progress_for(Console(stderr=True, highlight=False, quiet=not progress)) as display:
        yield display
