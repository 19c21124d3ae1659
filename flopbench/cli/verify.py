"""`flopbench verify`."""

from typing import Annotated

import typer

from flopbench.cli.console import echo, make_console
from flopbench.errors import ExitCode


def verify(
    suite: Annotated[str, typer.Option("--suite", help="Name or path of a suite, or all.")] = "all",
    quick: Annotated[bool, typer.Option("--quick", help="Only the networks of the quick profiles.")] = False,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            min=1,
            max=2**16,
            help="Pixels; else four cells of the coarsest grid, which is quick.",
        ),
    ] = None,
) -> None:
    """Check that the networks of a suite have the symmetry that they promise, in each of their tasks.

    Weights are perturbed. Errors are relative to the deviation of the output, on random images and on a
    photograph, in both precisions: the largest over the generators of the symmetry. Exit code 3 if one is
    beyond its tolerance.
    """
    from rich.progress import track

    from flopbench.report import text
    from flopbench.report.table import Column, Table, words
    from flopbench.testing.invariance import TOLERANCE
    from flopbench.testing.verify import DTYPES, candidates, verify_suite

    total = len(candidates(suite, quick=quick))
    found = verify_suite(suite, quick=quick, image_size=image_size)
    results = list(track(found, "verifying", total=total, console=make_console(stderr=True), transient=True))
    kinds = [(images, dtype) for dtype in DTYPES for images in ("random", "photo")]
    columns = (
        words("model"),
        words("task"),
        words("compared"),
        *(Column(f"{dtype}\n{images}", write=text.error, rank=2) for images, dtype in kinds),
        Column("symmetry", numeric=False, tone=lambda row: "good" if row["symmetry"] == "ok" else "bad"),
    )
    rows = [
        (
            result.candidate.name,
            result.candidate.task,
            result.what,
            *(max(result.errors[kind].values()) for kind in kinds),
            "ok" if result.passed else f"FAILED: {', '.join(result.broken)}",
        )
        for result in results
    ]
    make_console().print(Table.of("", columns, rows))
    failed = sum(not result.passed for result in results)
    tolerances = ", ".join(f"{TOLERANCE[dtype]:.0e} in {dtype}" for dtype in DTYPES)
    echo(f"{total - failed} of {total} networks have their symmetry (tolerance {tolerances})")
    if failed:
        raise typer.Exit(ExitCode.NOTHING_MEASURED)
