"""Engines that execute exported networks: AOTInductor, ONNX Runtime, OpenVINO, TensorRT; one file each.

A network goes `prepare` → `program_of` → `Engine.write` → a file → `Engine.load` → a session. The file loads
without flopbench. An engine's file says which of our operations' implementations it runs fastest: its idiom.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from flopbench.cells import EngineName
from flopbench.engines.base import Engine, Request, Session, program_of
from flopbench.engines.needs import NEEDS, missing_engine
from flopbench.errors import FlopbenchError
from flopbench.kernels import Ran
from flopbench.kernels.dispatch import idiom, observe
from flopbench.results import Deployment
from flopbench.symmetries import fold

__all__ = ["NEEDS", "Deployed", "Engine", "Request", "Session", "deploy", "engine", "missing_engine", "write"]

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
    device = next(iter(NEEDS[name].dtypes))
    if lacking := missing_engine(name, device, next(iter(NEEDS[name].dtypes[device]))):
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
    calibration: Sequence[tuple[Tensor, ...]] | None = None,
) -> Deployed:
    """A network exported, written, and loaded again.

    Args:
        name: of the engine.
        model: the network, which can do nothing but infer afterwards.
        args: what it is called with.
        request: what it is exported for.
        threads: of the session, by default as many as torch has.
        calibration: for int8; by default `args`.
    """
    one = engine(name)
    threads = threads or torch.get_num_threads()
    request = replace(request, calibration=[args] if calibration is None else calibration)
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
