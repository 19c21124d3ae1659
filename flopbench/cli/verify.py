"""`flopbench verify`."""

from typing import Annotated

import typer

from flopbench.errors import ExitCode


def verify(
    suite: Annotated[str, typer.Option("--suite", help="Name or path of a suite, or all.")] = "all",
    quick: Annotated[bool, typer.Option("--quick", help="Only the networks of the quick profiles.")] = False,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size", min=1, help="Pixels; else four cells of the coarsest grid, which is quick."
        ),
    ] = None,
) -> None:
    """Check that the networks of a suite have the symmetry that they promise.

    Weights are perturbed. Errors are relative to the deviation of the output, on random images and on a
    photograph, in both precisions. Exit code 1 if one is beyond its tolerance.
    """
    from flopbench.testing.invariance import TOLERANCE
    from flopbench.testing.verify import DTYPES, candidates, verify_suite

    columns = [(kind, dtype) for dtype in DTYPES for kind in ("random", "photo")]
    width = max(map(len, candidates(suite, quick=quick)))
    headings = "  ".join(f"{f'{dtype} {kind}':>12}" for kind, dtype in columns)
    typer.echo(f"{'model':<{width}}  {'compared':<10}  {headings}")
    failed = total = 0
    for result in verify_suite(suite, quick=quick, image_size=image_size):
        errors = "  ".join(f"{result.errors[column]:>12.1e}" for column in columns)
        verdict = "ok" if result.passed else "FAILED"
        typer.echo(f"{result.name:<{width}}  {result.what:<10}  {errors}  {verdict}")
        failed += not result.passed
        total += 1
    tolerances = ", ".join(f"{TOLERANCE[dtype]:.0e} in {dtype}" for dtype in DTYPES)
    typer.echo(f"{total - failed} of {total} networks have their symmetry (tolerance {tolerances})")
    if failed:
        raise typer.Exit(ExitCode.REGRESSION)
