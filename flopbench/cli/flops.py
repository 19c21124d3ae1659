"""`flopbench flops NAME`: counts of a network or a pair, layer by layer; `flopbench flops audit`."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from flopbench.axis_values import NetworkValue
from flopbench.cli.axes import Values, one_each, with_axes
from flopbench.cli.console import echo, make_console
from flopbench.errors import FlopbenchError
from flopbench.modes import Pass

Format = Literal["table", "json", "csv", "markdown"]


@with_axes(several=False, only=NetworkValue.__annotations__)
def flops(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PAIR",
            help="vit_b16 alone, vit_b16.flop beside its plain twin, CANDIDATE@BASELINE, "
            "timm:NAME or package.module:callable.",
        ),
    ],
    axes: Values,
    by: Annotated[Literal["layer", "operator"], typer.Option(help="Rows: layers or operators.")] = "layer",
    depth: Annotated[int, typer.Option(min=1, max=100, help="Levels of layers.")] = 2,
    pass_: Annotated[Pass, typer.Option("--pass", help="What is counted.")] = "forward",
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=2**24, help="Images, or what --inputs makes; 1 by default.")
    ] = None,
    images: Annotated[str, typer.Option("--input", help="Channels × height × width.")] = "3x224x224",
    dtype_bytes: Annotated[
        int, typer.Option(min=1, max=16, help="Bytes an element: 4 for fp32, 2 for fp16.")
    ] = 4,
    convention: Annotated[
        Literal["macs", "paper"],
        typer.Option(help="paper: also the paper's sum of MACs and elementwise operations."),
    ] = "macs",
    inputs: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="What makes the inputs of a batch size, instead of images, e.g. nets:tokens.",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="What is differentiated: a function of the output and the inputs, or a part of the output.",
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None,
) -> None:
    """Count MACs three ways, operations, bytes and parameters: where FLOPs are saved and where not."""
    from flopbench.api import count_flops

    channels, image_size = read_input(images)
    counted = count_flops(
        name,
        inputs,
        loss=loss,
        by=by,
        depth=depth,
        pass_=pass_,
        batch_size=batch_size,
        image_size=image_size,
        channels=channels,
        dtype_bytes=dtype_bytes,
        paper=convention == "paper",
        **one_each(axes),
    )
    for note in counted.notes():
        make_console(stderr=True).print(f"note: {note}", soft_wrap=True, markup=False)
    if output == "table" and out is None:
        make_console().print(*counted.tables())
        return
    _write(counted.text("markdown" if output == "table" else output), out)


def read_input(text: str) -> tuple[int, tuple[int, int]]:
    """`3x224x224` or `3×224×224` as channels and (height, width).

    Raises:
        FlopbenchError: it is not of that form.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})[x×]([1-9][0-9]{0,5})[x×]([1-9][0-9]{0,5})", text)
    if match is None:
        raise FlopbenchError(f"--input {text!r} is not CHANNELSxHEIGHTxWIDTH, e.g. 3x224x224")
    channels, height, width = map(int, match.groups())
    return channels, (height, width)


def audit(out: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None) -> None:
    """Audit the counts of the whole catalogue.

    Every count of every model, every difference between counters, and why.
    """
    from rich.progress import track

    from flopbench.flops.audit_report import audit_catalogue

    _write(audit_catalogue(lambda names: track(names, "auditing", console=make_console(stderr=True))), out)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        echo(text, end="")
    else:
        from flopbench.results import write_atomically

        write_atomically(out, text)
        make_console(stderr=True).print(f"wrote {out}", soft_wrap=True, markup=False)
