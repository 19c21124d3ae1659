"""A sweep over widths at a fixed depth: from which width, and which batch size, on equivariance pays."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from flopbench.cells import AXES, Cell, DeviceKind, DType, Frozen, Mode, Pair, Pass
from flopbench.profiling.widths import model_of, width_options
from flopbench.report import text
from flopbench.report.table import KEY, Column, Table, words
from flopbench.results import Environment, Interval, write_atomically
from flopbench.runner.process import Report, run_job

if TYPE_CHECKING:
    from flopbench.report.pictures import Drawing

WIDTHS = (192, 384, 768, 1024, 1536, 2048)
# Building, warming up and two rounds of the widest network take longer than its sampling.
OVERHEAD_SECONDS = 3.0


class ScalingPoint(Frozen):
    """One width, batch size and pass; without a speed-up where none was measured, and why."""

    width: int
    batch_size: int
    pass_: Pass = Field(alias="pass")
    macs_ratio: float | None = None
    speedup: Interval | None = None
    baseline_seconds: float | None = None
    candidate_seconds: float | None = None
    reason: str = ""

    model_config = {**Frozen.model_config, "populate_by_name": True}


class ScalingRecord(Frozen):
    """`scaling.json`: a family's pair over widths, all else the same."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    family: str
    version: str
    depth: int
    device: DeviceKind
    dtype: DType
    mode: Mode
    image_size: tuple[int, int]
    cell_seconds: float | None = None
    budget_seconds: float | None = None
    points: tuple[ScalingPoint, ...]
    environment: Environment | None = None

    model_config = {**Frozen.model_config, "populate_by_name": True}


class ScalingPlan(NamedTuple):
    """What to sweep: a product of widths, batch sizes and passes; `budget` and `cell_seconds` in seconds."""

    family: str
    version: str
    widths: tuple[int, ...]
    batches: tuple[int, ...]
    passes: tuple[Pass, ...]
    depth: int
    device: DeviceKind
    dtype: DType
    mode: Mode
    image_size: tuple[int, int]
    cell_seconds: float
    budget: float

    def cells(self) -> Iterator[tuple[int, Cell]]:
        """(width, cell), every width at the first batch size and pass before the next."""
        name = model_of(self.family)
        pair = Pair.of(f"{name}.{self.version}")
        for pass_ in self.passes:
            for batch in self.batches:
                for width in self.widths:
                    yield (
                        width,
                        Cell.model_validate(
                            {
                                "pair": pair,
                                "device": self.device,
                                "batch_size": batch,
                                "pass": pass_,
                                "dtype": self.dtype,
                                "mode": self.mode,
                                "image_size": self.image_size,
                            }
                        ),
                    )


def sweep_widths(
    plan: ScalingPlan,
    environment: Environment | None = None,
    *,
    tell: Callable[[ScalingPoint], None] = lambda point: None,
    run: Callable[..., Any] = run_job,
    now: Callable[[], float] = time.monotonic,
) -> ScalingRecord:
    """Measure each width in a process of its own until the budget is spent.

    Raises:
        FlopbenchError: no such family, or no such version of it.
    """
    points = []
    end = now() + plan.budget
    for width, cell in plan.cells():
        point = ScalingPoint.model_validate(
            {"width": width, "batch_size": cell.batch_size, "pass": cell.pass_}
        )
        left = end - now()
        if left < OVERHEAD_SECONDS:
            point = point.model_copy(update={"reason": "skipped: the budget is spent"})
        else:
            seconds = min(plan.cell_seconds, max(1.0, left - OVERHEAD_SECONDS))
            options = width_options(plan.family, width, plan.depth)
            outcome = run(measure_width, cell, options, seconds, timeout=max(60.0, left + 60.0))
            if outcome.kind == "done":
                point = point.model_copy(update=outcome.value)
            else:
                point = point.model_copy(update={"reason": f"{outcome.kind}: {outcome.value}"})
        points.append(point)
        tell(point)
    return ScalingRecord(
        family=plan.family,
        version=plan.version,
        depth=plan.depth,
        device=plan.device,
        dtype=plan.dtype,
        mode=plan.mode,
        image_size=plan.image_size,
        cell_seconds=plan.cell_seconds,
        budget_seconds=plan.budget,
        points=tuple(points),
        environment=environment,
    )


def measure_width(report: Report, cell: Cell, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The job of a worker: both networks at one width, timed in alternation.

    Returns:
        What a `ScalingPoint` holds of it.
    """
    import torch

    from flopbench.models.factory import create_model, perturb
    from flopbench.profiling.roofline import Work
    from flopbench.timing.clock import CLOCKS
    from flopbench.timing.sampling import calls_a_block, sample_pair, warm_up
    from flopbench.timing.workload import make_images, make_workload, weights_dtype

    device = torch.device(cell.device)
    clock = CLOCKS[cell.device]()
    images = make_images(cell, device)
    workloads, pace, macs = [], [], []
    for seed, name in enumerate((cell.pair.baseline, cell.pair.candidate)):
        macs.append(Work(name, cell, **options).macs)
        with torch.device("meta"):
            model = create_model(name, cell.image_size, cell.num_classes, **options)
        model = perturb(model.to_empty(device=device), seed).to(weights_dtype(cell))
        workload = make_workload(model, images, cell)
        workload.run()
        clock.synchronise()
        pace.append(warm_up(clock, workload, seconds=0.1 * seconds)[-1])
        workloads.append(workload)
    rounds = sample_pair(clock, *workloads, calls=calls_a_block(min(pace)), precision=0.01, seconds=seconds)

    def middle(rows: list[list[float]]) -> float:
        values = sorted(value for row in rows for value in row)
        return values[len(values) // 2]

    return {
        "macs_ratio": macs[0] / macs[1],
        "speedup": rounds.speedup,
        "baseline_seconds": middle(rounds.baseline),
        "candidate_seconds": middle(rounds.candidate),
    }


def pays_from(points: Sequence[tuple[int, Interval | None]]) -> int | None:
    """The smallest width (or batch size) from which on every interval lies above 1; None if there is none."""
    found = None
    for where, speedup in sorted(points, key=lambda point: point[0], reverse=True):
        if speedup is None:
            continue
        if speedup.low <= 1:
            break
        found = where
    return found


def answers(record: ScalingRecord) -> list[str]:
    """From which width on, a pass and batch size, and from which batch size on at every width, it pays."""
    sentences = []
    passes = dict.fromkeys(point.pass_ for point in record.points)
    batches = sorted({point.batch_size for point in record.points})
    for pass_ in passes:
        own = [point for point in record.points if point.pass_ == pass_ and point.speedup]
        for batch in batches:
            at = [(point.width, point.speedup) for point in own if point.batch_size == batch]
            sentences += [f"{pass_.capitalize()}, batch {batch}: {_crossover(at, 'width')}."] if at else []
        if len(batches) > 1 and own:
            sentences.append(f"{pass_.capitalize()}: {_batches_that_pay(own)}.")
    skipped = sum(point.speedup is None for point in record.points)
    if skipped:
        sentences.append(f"{skipped} of {len(record.points)} points were not measured; the table says why.")
    return sentences


def _batches_that_pay(points: Sequence[ScalingPoint]) -> str:
    widths: dict[int | None, list[str]] = {}
    for width in sorted({point.width for point in points}):
        batch = pays_from([(point.batch_size, point.speedup) for point in points if point.width == width])
        widths.setdefault(batch, []).append(str(width))

    def where(batch: int | None) -> str:
        if len(widths) == 1:
            return "at every width measured" if batch else "at any width measured"
        return f"at width{'s' if len(widths[batch]) > 1 else ''} {text.joined(widths[batch])}"

    said = [f"from batch {batch} on {where(batch)}" for batch in sorted(filter(None, widths))]
    return "it pays " + "; ".join(said + [f"at no batch size {where(None)}"] * (None in widths))


def _crossover(points: Sequence[tuple[int, Interval | None]], what: str) -> str:
    found = pays_from(points)
    known = [(where, speedup) for where, speedup in sorted(points, key=lambda p: p[0]) if speedup]
    first, (last, largest) = known[0][0], known[-1]
    if found is None:
        kind = "costs time" if largest.high < 1 else "is neither faster nor slower for certain"
        return f"equivariance pays from no {what} measured; at the largest, {last}, it {kind}"
    if found == first:
        return f"equivariance pays at every {what} measured, from {first} on"
    return f"equivariance pays from {what} {found} on"


def scaling_table(record: ScalingRecord) -> Table:
    """A row a point."""
    columns = (
        words("pass", "pass_"),
        Column("batch", "batch_size", rank=KEY),
        Column("width", "width", rank=KEY),
        Column("time\nbaseline", "baseline_seconds", text.seconds),
        Column("time\ncandidate", "candidate_seconds", text.seconds),
        Column(
            "speed-up\n[95 % interval]",
            "speedup",
            lambda up: text.interval(up.estimate, up.low, up.high),
        ),
        Column("MACs ratio", "macs_ratio", text.factor),
        words("reason", rank=2, wraps=True),
    )
    return Table("Speed-up over width", columns, record.points)


def scaling_picture(record: ScalingRecord) -> "Drawing | None":
    """Speed-up against width, a panel a pass, a line a batch size, with the MACs ratio and 1."""
    from flopbench.report.pictures.drawing import Drawing
    from flopbench.report.pictures.style import INK, MUTED, batch_axis, look, panels

    passes = list(dict.fromkeys(p.pass_ for p in record.points if p.speedup))
    if not passes:
        return None
    figure, axes = panels(len(passes), columns=2, size=(3.8, 3.0), sharey=True)
    widths = sorted({point.width for point in record.points})
    for axis, pass_ in zip(axes, passes, strict=True):
        own = [point for point in record.points if point.pass_ == pass_ and point.speedup]
        for index, batch in enumerate(sorted({point.batch_size for point in own})):
            line = sorted((p for p in own if p.batch_size == batch), key=lambda p: p.width)
            ups = [p.speedup for p in line if p.speedup]
            middle = [up.estimate for up in ups]
            reach = [[up.estimate - up.low for up in ups], [up.high - up.estimate for up in ups]]
            style = look(index)
            axis.errorbar(
                [p.width for p in line],
                middle,
                yerr=reach,
                color=style.color,
                marker=style.marker,
                linestyle=style.dashes,
                label=f"batch {batch}",
            )
        ideal = sorted({(p.width, p.macs_ratio) for p in own if p.macs_ratio})
        axis.plot(*zip(*ideal, strict=True), color=MUTED, linestyle=(0, (2, 2)), label="MACs ratio")
        axis.axhline(1.0, color=INK, linewidth=0.9)
        batch_axis(axis, widths)
        # Four digits each, and neighbours less than half an octave apart.
        axis.tick_params(axis="x", labelrotation=45)
        axis.set_title(pass_)
        axis.set_xlabel("width (channels)")
        axis.legend()
    axes[0].set_ylabel("speed-up")
    return Drawing(
        "speedup-over-width",
        "Speed-up against width",
        f"Depth {record.depth}; intervals are 95 %; below the line at 1 equivariance costs time.",
        "Speed-up of the candidate against the number of channels, a line a batch size.",
        figure,
    )


def write_scaling(record: ScalingRecord, out: Path) -> Path:
    """Write `out/scaling-…/scaling.md` with its picture and `scaling.json`; the Markdown file's path."""
    from flopbench.profiling.page import save_pictures, write_page
    from flopbench.report.pictures.style import style

    folder = out / f"scaling-{record.family}-{record.version}-{record.device}-{record.dtype}-{record.mode}"
    with style():
        pictures = save_pictures([scaling_picture(record)], folder)
    write_atomically(folder / "scaling.json", record.model_dump_json(by_alias=True, indent=1) + "\n")
    device = record.environment.device_name if record.environment else record.device

    def listed(values: set[int]) -> str:
        return " ".join(map(str, sorted(values)))

    widths, batches = listed({p.width for p in record.points}), listed({p.batch_size for p in record.points})
    command = f"flopbench scaling --family {record.family} --version {record.version} --depth {record.depth}"
    command += "".join(f" --widths {width}" for width in widths.split())
    command += "".join(f" --batch {batch}" for batch in batches.split())
    command += "".join(f" --pass {pass_}" for pass_ in dict.fromkeys(p.pass_ for p in record.points))
    command += f" --dtype {record.dtype} --mode {record.mode} --device {record.device}"
    command += f" --image-size {'x'.join(map(str, record.image_size))}"
    if record.cell_seconds and record.budget_seconds:
        command += f" --cell-seconds {record.cell_seconds:.10g} --budget {record.budget_seconds:.10g}s"
    return write_page(
        folder / "scaling.md",
        {
            "title": f"From which width on equivariance pays: {record.family}, {record.version}",
            "setting": f"{record.depth} blocks, {AXES['dtype'].say(record.dtype)}, "
            f"{AXES['mode'].say(record.mode)}, "
            f"{'×'.join(map(str, record.image_size))} pixels, on {device}.",
            "sentences": answers(record),
            "tables": [scaling_table(record)],
            "pictures": pictures,
            "data": "scaling.json",
            "command": command,
        },
    )
