"""`flopbench evaluate MODEL`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flopbench.cells import AXES
from flopbench.cli.console import make_console
from flopbench.ranks import speaks


def evaluate(
    model: Annotated[str, typer.Argument(help="E.g. vit_s16.flop, timm:NAME or package.module:callable.")],
    data: Annotated[
        str,
        typer.Option(
            help="A folder of class folders, or with val/ in it; hfds/NAME, wds/FOLDER, tfds/NAME, "
            "torch/NAME; animal-shape-mnist, animal-segmentation, fashion-mnist, digits."
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            help="A file: flopbench's own, a released checkpoint, timm's, a state dict; or 'pretrained', "
            "what timm downloads."
        ),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="Pixels: 224 or 224x192; by default what the network was trained for.")
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            help="Share of the resized image's shorter side that the centre crop has; default 1.",
        ),
    ] = None,
    interpolation: Annotated[str | None, typer.Option(help="bilinear or bicubic.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per call; by default 32 on a CPU, 256 on a GPU.")
    ] = None,
    dtype: Annotated[str, typer.Option(help=AXES["dtype"].help)] = "fp32",
    mode: Annotated[str, typer.Option(help=AXES["mode"].help)] = "eager",
    impl: Annotated[str, typer.Option(help="Our layers' kernels: auto, eager, fused.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    tta: Annotated[
        bool | None,
        typer.Option(
            help="Score the mean over an image and its mirror image; by default where they may differ."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read images.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="That a CPU computes with.")] = None,
    cell_seconds: Annotated[
        float, typer.Option(min=0, max=3600, help="Of timing, at most; 0 for no timing.")
    ] = 5.0,
    precision: Annotated[
        float, typer.Option(help="Relative half-width of the time's interval at which timing ends.")
    ] = 0.02,
    results: Annotated[Path, typer.Option(help="Where the raw data go.")] = Path("results"),
    reports: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("reports"),
) -> None:
    """Measure a trained network's accuracy, on images and on their mirror images, and its speed."""
    import flopbench
    from flopbench.cells import AXES
    from flopbench.runner.begin import recorded_command

    evaluation = flopbench.evaluate(
        model,
        weights,
        data=data,
        image_size=AXES["image_size"].parse(image_size) if image_size else None,
        crop=crop,
        interpolation=interpolation,
        batch_size=batch_size,
        dtype=AXES["dtype"].parse(dtype),
        mode=AXES["mode"].parse(mode),
        impl=AXES["impl"].parse(impl),
        device=device,
        tta=tta,
        workers=workers,
        threads=threads,
        cell_seconds=cell_seconds,
        precision=precision,
        results=results,
        command=recorded_command(sys.argv[1:]),
    )
    if not speaks():
        return
    console = make_console()
    console.print(*evaluation.tables())
    for answer in evaluation.answers:
        console.print(" ".join([answer.headline, *answer.points]), markup=False)
    files = evaluation.report(reports)
    for record in evaluation.records:
        console.print(f"raw data: {results / record.id}", soft_wrap=True, markup=False)
    console.print(f"report: {files.html}", soft_wrap=True, markup=False)
