"""What every engine does: it takes an exported program to a file, and the file to what is called."""

import logging
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.export import ExportedProgram

from flopbench.errors import FlopbenchError, gist, in_one_line, out_of_memory
from flopbench.kernels import Name
from flopbench.modes import DType, EngineName

Session = Callable[..., Any]
"""Called with tensors, on the engine's device and in the dtype that was exported. Gives a tensor, or a list
of several; they stay as they are until the next call."""


@dataclass(frozen=True)
class Request:
    """What a program is exported for.

    Attributes:
        dtype: that the engine computes in, and the program is in, but for those that convert it from fp32
            (`flopbench.modes.CONVERTING`).
        device: "cpu" or "cuda".
        about: what the file says of itself, by key.
        calibration: for int8, inputs that are like those to come, a tuple of tensors each.
    """

    dtype: DType = "fp32"
    device: str = "cpu"
    about: Mapping[str, str] = field(default_factory=dict)
    calibration: Sequence[tuple[Tensor, ...]] = ()


class Engine(ABC):
    """An engine; one file each in this room.

    Attributes:
        name: the mode of cells that run in it.
        suffix: of the file that is loaded.
        idiom: the implementation of each operation that it runs fastest, by the operation's name; torch's own
            for all others. Chosen by measurement alone.
    """

    name: ClassVar[EngineName]
    suffix: ClassVar[str]
    idiom: ClassVar[Mapping[str, Name]] = {}

    @abstractmethod
    def version(self) -> str:
        """Of what is installed."""

    @abstractmethod
    def write(self, program: ExportedProgram, path: Path, request: Request) -> None:
        """Put a program, and all that it needs, into `files(path)`."""

    def files(self, path: Path) -> Sequence[Path]:
        """What `write` puts at and beside a path; all of it is needed to load the network."""
        return (path,)

    @abstractmethod
    def load(self, path: Path, request: Request, threads: int) -> Session:
        """What a file becomes, ready for its first call, on so many threads."""

    def contents(self, path: Path) -> str:
        """What kind of file was written, in a few words."""
        return f"{path.suffix.removeprefix('.')} of {self.name}"

    def provider(self, request: Request) -> str:
        """What within the engine computes."""
        return request.device


def program_of(model: torch.nn.Module, args: tuple[Tensor, ...]) -> ExportedProgram:
    """What a network computes, for any batch size.

    Args:
        model: in evaluation mode.
        args: what it is called with; the first axis of each is the batch.

    Raises:
        FlopbenchError: torch.export cannot take it.
    """
    # Of a batch of one torch would take it that there is never another.
    args = tuple(torch.cat([x, x]) if x.shape[0] == 1 else x for x in args)
    batch = torch.export.Dim("batch", min=1, max=65536)
    shapes = tuple({0: batch} for _ in args)
    try:
        # Where it fails it prints the whole graph as well.
        with torch.no_grad(), quiet(), redirect_stderr(StringIO()):
            return torch.export.export(model, args, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        if out_of_memory(error):
            raise
        # Of what it found out of the shapes, the first line is only the heading.
        found = re.search(r"^  - (.*)", str(error), flags=re.MULTILINE)
        why = gist(found[1]) if found else in_one_line(error)
        raise FlopbenchError(f"torch.export cannot take it: {why}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, what exporters and their tools warn of stays unsaid: it is about their insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
