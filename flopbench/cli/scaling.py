"""`flopbench scaling`."""

from pathlib import Path
from typing import Annotated

import typer

from flopbench.cli.console import make_console
from flopbench.errors import FlopbenchError, NothingMeasuredError


def scaling(
    family: Annotated[str, typer.Option(help="vit, resmlp or convnext_iso.")] = "vit",
    version: Annotated[str, typer.Option(help="Of the candidate: flop, hybrid or early_invariant.")] = "flop",
    widths: Annotated[
        list[int] | None, typer.Option(min=4, help="Channels; repeatable. 192 to 2048 by default.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Images; repeatable. 1 and 4.")] = None,
    pass_: Annotated[
        list[str] | None, typer.Option("--pass", help="forward, backward or train; repeatable. forward.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Blocks, the same at every width.")] = 4,
    dtype: Annotated[str | None, typer.Option(help="fp32 by default, on CUDA bf16.")] = None,
    mode: Annotated[str, typer.Option(help="eager, compile, compile-blocks, …")] = "eager",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    image_size: Annotated[str, typer.Option(help="Pixels: 224 or 224x192.")] = "224",
    cell_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of sampling a point, at most.")] = 4.0,
    budget: Annotated[str, typer.Option(help="Time for the whole sweep, e.g. 5m.")] = "5m",
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("reports"),
) -> None:
    """Find from which width, and from which batch size, equivariance pays on this device."""

    from flopbench.cli.axes import cells_of
    from flopbench.cli.run import parse_duration
    from flopbench.profiling.scaling import (
        WIDTHS,
        ScalingPlan,
        ScalingPoint,
        answers,
        scaling_table,
        sweep_widths,
        write_scaling,
    )
    from flopbench.profiling.widths import model_of
    from flopbench.runner.sweep import probe_environment

    seconds = parse_duration(budget)
    candidate = f"{model_of(family)}.{version}"
    environment = probe_environment(device)
    kind = environment.device
    dtype = dtype or ("fp32" if kind == "cpu" else "bf16")
    # Every option is checked before anything is measured.
    axes = {"passes": pass_ or ["forward"], "dtypes": [dtype], "modes": [mode], "image_sizes": [image_size]}
    cells = cells_of(candidate, kind, {plural: tuple(values) for plural, values in axes.items()})
    odd = [width for width in widths or () if width % 4]
    if odd:
        raise FlopbenchError(
            f"--widths {odd[0]}: channels must be a multiple of 4, e.g. {odd[0] // 4 * 4 or 4}"
        )
    plan = ScalingPlan(
        family=family,
        version=version,
        widths=tuple(sorted(set(widths or WIDTHS))),
        batches=tuple(sorted(set(batch or (1, 4)))),
        passes=tuple(cell.pass_ for cell in cells),
        depth=depth,
        device=kind,
        dtype=cells[0].dtype,
        mode=cells[0].mode,
        image_size=cells[0].image_size,
        cell_seconds=cell_seconds,
        budget=seconds,
    )
    console = make_console()

    def tell(point: ScalingPoint) -> None:
        shown = f"{point.speedup.estimate:.2f}×" if point.speedup else point.reason
        console.print(f"width {point.width}, batch {point.batch_size}, {point.pass_}: {shown}", markup=False)

    record = sweep_widths(plan, environment, tell=tell)
    if all(point.speedup is None for point in record.points):
        raise NothingMeasuredError(f"no width could be measured: {record.points[0].reason}")
    console.print(scaling_table(record))
    for sentence in answers(record):
        console.print(sentence, markup=False)
    console.print(f"report: {write_scaling(record, out)}", soft_wrap=True, markup=False)
