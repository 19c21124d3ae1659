"""`flopbench export MODEL --to ENGINE --out FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from flopbench.axis_values import NetworkValue
from flopbench.cli.axes import Values, one_each, with_axes
from flopbench.cli.console import make_console
from flopbench.modes import CALIBRATION
from flopbench.ranks import speaks


@with_axes(several=False, only={*NetworkValue.__annotations__, "depth", "image_size"})
def export(
    model: Annotated[str, typer.Argument(help="E.g. vit_s16.flop, timm:NAME or package.module:callable.")],
    to: Annotated[str, typer.Option(help="onnx (ONNX Runtime), aot (AOTInductor) or openvino.")],
    out: Annotated[Path, typer.Option(help="The file.")],
    axes: Values,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A file: flopbench's own, a released checkpoint, timm's, a state dict; or 'pretrained', "
            "what timm downloads. By default a callable's own, and random ones of networks that have none."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="fp32; bf16 for aot and openvino; int8 for onnx and openvino.")
    ] = "fp32",
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="For int8: images that are like those to come, as evaluate --data."
        ),
    ] = None,
    calibration_images: Annotated[
        int, typer.Option(min=1, max=2**20, help="How many of them at most, spread evenly.")
    ] = CALIBRATION,
    licence: Annotated[
        str | None, typer.Option(help="Of the weights, for the file to say; by default what timm says.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Load the file and hold its outputs against torch's.")
    ] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="That the checks compute with.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a network as a file that an engine loads without flopbench, checked in that engine.

    It takes any number of images, runs on a CPU, and says of itself what it is.
    """
    import flopbench
    from flopbench.cells import AXES

    exported = flopbench.export(
        model,
        out,
        to=to,  # pyright: ignore[reportArgumentType]
        weights=weights,
        dtype=AXES["dtype"].parse(dtype),
        calibration=calibration,
        calibration_images=calibration_images,
        licence=licence,
        check=check,
        threads=threads,
        force=force,
        **one_each(axes),
    )
    if speaks():
        make_console().print(exported)
