"""`flopbench race`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flopbench.cli.console import echo, make_console
from flopbench.cli.report import check_format
from flopbench.errors import ExitCode, FlopbenchError, Interrupted

if TYPE_CHECKING:
    from flopbench.report.races import RaceResult


def race(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe (see `flopbench list`) or a TOML file.")
    ] = None,
    pair: Annotated[
        str | None, typer.Option(help="The candidate, e.g. vit_ti16.flop, or CANDIDATE@BASELINE.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Name of a data set, or a folder with train/ and val/.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="A suite of races instead: its name or a TOML file.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Each trains every entrant once; by default 3, or what the suite says.")
    ] = None,
    rival: Annotated[
        list[str] | None,
        typer.Option(help="mirror, wide, half-width or half-depth; repeatable; by default all there are."),
    ] = None,
    no_rivals: Annotated[bool, typer.Option("--no-rivals", help="The pair alone.")] = False,
    target: Annotated[
        float | None,
        typer.Option(
            help="Top-1, of a segmentation mIoU, in per cent whose time is told; by default what every seed "
            "of X reached."
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="In place of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads that a CPU computes with; by default as many as torch takes.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for all of it, e.g. 30m; what does not fit is left for --resume.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Name the trainings in their order, and run none.")
    ] = False,
    resume: Annotated[Path | None, typer.Option(help="Go on with the race in this folder.")] = None,
    results: Annotated[Path, typer.Option(help="Where the folders of races go.")] = Path("results"),
    reports: Annotated[Path, typer.Option(help="Where reports go.")] = Path("reports"),
    format_: Annotated[str, typer.Option("--format", help="table, json, csv or markdown.")] = "table",
) -> None:
    """Race a pair by measured time: X, E(X) and rivals, trained by one recipe with several seeds.

    The clock stops in evaluations, and what is compiled is compiled before it starts. Exit code 3 if no
    training ended well.
    """
    from flopbench.ranks import speaks
    from flopbench.runner.begin import recorded_command
    from flopbench.training import race as racing

    check_format(format_)
    if rival and no_rivals:
        raise FlopbenchError("--rival and --no-rivals exclude one another: choose one, or neither")
    asked: dict[str, Any] = {
        "recipe": recipe,
        "pair": pair,
        "data": data,
        "suite": suite,
        "seeds": seeds,
        "rivals": () if no_rivals else tuple(rival) if rival else None,
        "target": target,
        "epochs": epochs,
        "batch_size": batch_size,
    }
    if dry_run:
        if resume is not None:
            raise FlopbenchError("--resume takes the race as it was begun; leave out --dry-run")
        for line in racing.planned(**asked):
            echo(line)
        return
    # What the user reads goes to stderr when stdout is for a pipe.
    console = make_console(stderr=format_ != "table")
    interrupted = False
    try:
        result = racing.race(
            **asked,
            device=device,
            threads=threads,
            budget=budget,
            results=results,
            resume=resume,
            command=recorded_command(sys.argv[1:]),
        )
    except Interrupted as stopped:
        interrupted, result = True, stopped.result
        console.print("interrupted; every training that had ended is kept", highlight=False)
    if not speaks():
        return
    (folder,) = result.folders
    if folder.trials():
        _show(result, reports, format_, console)
    if interrupted:
        console.print(f"continue with: flopbench race --resume {folder.path}", soft_wrap=True, markup=False)
        raise typer.Exit(ExitCode.INTERRUPTED)


def _show(result: "RaceResult", reports: Path, format_: str, console: Any) -> None:
    if format_ == "table":
        console.print(*result.tables())
    else:
        echo(result.formatted(format_))
    files = result.report(reports)
    console.print(f"raw data: {result.folders[0].path}", soft_wrap=True, markup=False)
    console.print(f"report:   {files.markdown}", soft_wrap=True, markup=False)
    for answer in files.answers:
        console.print(answer.in_short, markup=False)
