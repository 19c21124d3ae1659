"""AOTInductor: what torch.compile makes of a network, as one file, for a CPU or for CUDA."""

import platform
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch._inductor import aoti_compile_and_package, aoti_load_package
from torch._inductor import config as inductor
from torch.export import ExportedProgram

from flopbench.engines.base import Engine, Request, Session, quiet
from flopbench.errors import FlopbenchError, in_one_line, out_of_memory
from flopbench.kernels.inductor import missing_compiler


class AotInductor(Engine):
    """AOTInductor: C++, and on CUDA Triton's kernels, compiled for the kind of processor that compiles them.

    The file holds a shared library with the weights in it. `torch._inductor.aoti_load_package` loads it, with
    the version of torch that wrote it, and needs neither a compiler nor flopbench.
    """

    name = "aot-inductor"
    suffix = ".pt2"

    def version(self) -> str:
        """That of torch, which it is a part of."""
        return torch.__version__

    def write(self, program: ExportedProgram, path: Path, request: Request) -> None:
        """A package of torch's, with `Request.about` among its metadata.

        Raises:
            FlopbenchError: no C++ compiler is installed, or it cannot compile the program.
        """
        if (wanted := missing_compiler()) is not None:
            raise FlopbenchError(f"{self.name} needs a C++ compiler ({wanted}): install one")
        try:
            with quiet():
                aoti_compile_and_package(program, package_path=str(path), inductor_configs=_settings(request))
        except Exception as error:
            if out_of_memory(error):
                raise
            raise FlopbenchError(f"{self.name} cannot compile it: {in_one_line(error)}") from error
        _empty_sources(path)

    def contents(self, path: Path) -> str:
        """The kind of processor that it was compiled for."""
        return f"package of torch with a library for {platform.machine()}"

    def load(self, path: Path, request: Request, threads: int) -> Session:
        """The network of a package; it computes with torch's threads, which are so many from now on."""
        torch.set_num_threads(threads)
        package: Any = aoti_load_package(str(path))
        return package


def _settings(request: Request) -> dict[str, Any]:
    settings: dict[str, Any] = {
        # A copy, for torch adds to it.
        "aot_inductor.metadata": dict(request.about),
        # Weights are packed for the products that they go into, as oneDNN wants them.
        "freezing": request.device == "cpu",
    }
    # Later versions of torch number the lines of sources, which the file does not hold.
    if hasattr(inductor.aot_inductor, "enable_line_tables"):
        settings["aot_inductor.enable_line_tables"] = False
    return settings


def _empty_sources(path: Path) -> None:
    """Empty a package's C++, which its library was compiled from: it is full of this machine's paths.

    The files stay, for by their names torch finds the metadata.
    """
    whole = path.with_name(f"{path.stem}.whole{path.suffix}")
    path.rename(whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for one in old.infolist():
            new.writestr(one, b"\n" if one.filename.endswith(".cpp") else old.read(one))
    whole.unlink()
