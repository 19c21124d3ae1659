"""From a network to what an engine calls: exported, written, loaded."""

import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from flopbench.engines.base import Engine, Request, Session, program_of
from flopbench.engines.needs import not_installed
from flopbench.errors import FlopbenchError
from flopbench.kernels import Ran
from flopbench.kernels.dispatch import idiom, observe
from flopbench.modes import EngineName
from flopbench.results import Deployment
from flopbench.symmetries import fold

_FILES: dict[EngineName, str] = {
    "aot-inductor": "aot_inductor:AotInductor",
    "onnxruntime": "onnxruntime:OnnxRuntime",
    "openvino": "openvino:OpenVino",
    "tensorrt": "tensorrt:TensorRt",
}


@dataclass(frozen=True)
class Deployed:
    """A network in an engine.

    Attributes:
        session: what is called.
        record: what is known of it.
        ran: what each operation of ours was exported as.
    """

    session: Session
    record: Deployment
    ran: Ran


def engine(name: EngineName) -> Engine:
    """An engine by its name. Imports it.

    Raises:
        FlopbenchError: it is not installed.
    """
    if lacking := not_installed(name):
        raise FlopbenchError(lacking)
    module, _, kind = _FILES[name].partition(":")
    return getattr(import_module(f"flopbench.engines.{module}"), kind)()


def write(one: Engine, model: nn.Module, args: tuple[Tensor, ...], path: Path, request: Request) -> Ran:
    """Export a network into a file, for any batch size.

    The network can do nothing but infer afterwards: its layers hold the weights that they compute with
    (`symmetries.fold`).

    Returns:
        What each operation of ours was exported as.

    Raises:
        FlopbenchError: torch.export cannot take the network, or the engine cannot take what it gives.
    """
    fold(model.eval())
    with observe() as ran, idiom(one.idiom):
        program = program_of(model, args)
    one.write(program, path, request)
    return ran


def deploy(
    name: EngineName,
    model: nn.Module,
    args: tuple[Tensor, ...],
    request: Request,
    *,
    threads: int | None = None,
) -> Deployed:
    """A network exported, written, and loaded again.

    Args:
        name: of the engine.
        model: the network, which can do nothing but infer afterwards.
        args: what it is called with.
        request: what it is exported for.
        threads: of the session, by default as many as torch has.
    """
    one = engine(name)
    threads = threads or torch.get_num_threads()
    with TemporaryDirectory(prefix="flopbench-") as folder:
        path = Path(folder) / f"network{one.suffix}"
        start = time.monotonic()
        ran = write(one, model, args, path, request)
        written = time.monotonic()
        session = one.load(path, request, threads)
        loaded = time.monotonic()
        size = sum(file.stat().st_size for file in one.files(path))
    record = Deployment(
        engine=name,
        version=one.version(),
        provider=one.provider(request),
        threads=threads,
        export_seconds=written - start,
        load_seconds=loaded - written,
        disk_bytes=size,
    )
    return Deployed(session, record, ran)
