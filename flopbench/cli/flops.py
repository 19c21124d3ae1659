"""`flopbench flops NAME`: counts of a network or a pair, layer by layer; `flopbench flops audit`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flopbench.cli.console import make_console


class By(StrEnum):
    """What the rows are."""

    LAYER = "layer"
    OPERATOR = "operator"


class PassName(StrEnum):
    """What is counted."""

    FORWARD = "forward"
    BACKWARD = "backward"
    TRAIN = "train"


class Format(StrEnum):
    """How the counts are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


class Convention(StrEnum):
    """What a FLOP is."""

    MACS = "macs"
    PAPER = "paper"


def flops(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PAIR",
            help="vit_b16 alone, vit_b16.flop beside its plain twin, CANDIDATE@BASELINE, "
            "timm:NAME or package.module:callable.",
        ),
    ],
    by: Annotated[By, typer.Option("--by", help="Rows: layers or operators.")] = By.LAYER,
    depth: Annotated[int, typer.Option(min=1, help="Levels of layers.")] = 2,
    pass_: Annotated[PassName, typer.Option("--pass", help="What is counted.")] = PassName.FORWARD,
    batch_size: Annotated[int, typer.Option(min=1, help="Images.")] = 1,
    images: Annotated[str, typer.Option("--input", help="Channels × height × width.")] = "3x224x224",
    dtype_bytes: Annotated[int, typer.Option(min=1, help="Bytes an element: 4 for fp32, 2 for fp16.")] = 4,
    convention: Annotated[
        Convention, typer.Option(help="paper: also the paper's sum of MACs and elementwise operations.")
    ] = Convention.MACS,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None,
) -> None:
    """Count MACs three ways, operations, bytes and parameters: where FLOPs halve and where not."""
    from flopbench.flops import command

    counted = command.count(
        name,
        images,
        by.value,
        depth,
        pass_.value,
        batch_size,
        dtype_bytes,
        paper=convention is Convention.PAPER,
    )
    if output is Format.TABLE and out is None:
        make_console().print(*counted.tables())
        return
    _write(counted.text("markdown" if output is Format.TABLE else output.value), out)


def audit(out: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None) -> None:
    """Audit the counts of the whole catalogue.

    Every count of every model, every difference between counters, and why.
    """
    from rich.progress import track

    from flopbench.flops.audit_report import audit_catalogue

    _write(audit_catalogue(lambda names: track(names, "auditing", console=make_console(stderr=True))), out)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
    else:
        from flopbench.results import write_atomically

        write_atomically(out, text)
        typer.echo(f"wrote {out}", err=True)
