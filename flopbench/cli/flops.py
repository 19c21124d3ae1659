"""`flopbench flops NAME`: counts of a network or a pair, layer by layer; `flopbench flops audit`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flopbench.cells import Pass
from flopbench.cli.console import echo, make_console
from flopbench.errors import FlopbenchError
from flopbench.models.catalog import parse_name

if TYPE_CHECKING:
    from flopbench.flops.command import Counts

Format = Literal["table", "json", "csv", "markdown"]


def flops(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PAIR",
            help="vit_b16 alone, vit_b16.flop beside its plain twin, CANDIDATE@BASELINE, "
            "timm:NAME or package.module:callable.",
        ),
    ],
    by: Annotated[Literal["layer", "operator"], typer.Option(help="Rows: layers or operators.")] = "layer",
    depth: Annotated[int, typer.Option(min=1, max=100, help="Levels of layers.")] = 2,
    pass_: Annotated[Pass, typer.Option("--pass", help="What is counted.")] = "forward",
    batch_size: Annotated[int, typer.Option(min=1, max=2**24, help="Images.")] = 1,
    images: Annotated[str, typer.Option("--input", help="Channels × height × width.")] = "3x224x224",
    dtype_bytes: Annotated[
        int, typer.Option(min=1, max=16, help="Bytes an element: 4 for fp32, 2 for fp16.")
    ] = 4,
    convention: Annotated[
        Literal["macs", "paper"],
        typer.Option(help="paper: also the paper's sum of MACs and elementwise operations."),
    ] = "macs",
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None,
) -> None:
    """Count MACs three ways, operations, bytes and parameters: where FLOPs halve and where not."""
    from flopbench.flops import command

    request = (name, images, by, depth, pass_, batch_size, dtype_bytes, convention == "paper")
    foreign = any(parse_name(each).spec is None for each in command.names_of(name))
    counted = _apart(*request) if foreign else command.count(*request)
    for note in counted.notes():
        make_console(stderr=True).print(f"note: {note}", soft_wrap=True, markup=False)
    if output == "table" and out is None:
        make_console().print(*counted.tables())
        return
    _write(counted.text("markdown" if output == "table" else output), out)


def _apart(name: str, *request: Any) -> "Counts":
    """Counted in a process of its own, which somebody else's network may end or print in as it likes."""
    from flopbench.runner.process import run_job

    outcome = run_job("flopbench.flops.command:count_in_worker", name, *request, timeout=math.inf, echo=True)
    if outcome.kind == "done":
        return outcome.value
    what = outcome.value if outcome.kind == "usage" else f"cannot count {name}: {outcome.value}"
    raise FlopbenchError(what)


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
