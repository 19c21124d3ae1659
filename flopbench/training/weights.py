"""Files of weights that say which network they are of: safetensors, which hold nothing that could run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.results import write_atomically
from flopbench.results.trainings import NetworkInfo

# The key of the file's metadata, which are strings.
_KEY = "flopbench"


def save_weights(path: Path, state: Mapping[str, Tensor], info: NetworkInfo) -> None:
    """Write a state dict as a `.safetensors` file, whole or not at all.

    Raises:
        FlopbenchError: safetensors is not installed.
        OSError: the disk is full; what was there before is there still.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomically(path, _safetensors().torch.save(tensors, {_KEY: info.model_dump_json()}))


def weights_info(path: Path) -> NetworkInfo | None:
    """What a `.safetensors` file says of its network; None where there is no such file, or it says nothing.

    Raises:
        FlopbenchError: as `read_weights`.
    """
    return _read(path, tensors=False)[1] if path.is_file() else None


def read_weights(path: Path) -> tuple[dict[str, Tensor], NetworkInfo | None]:
    """The tensors of a `.safetensors` file, and what it says of their network, if flopbench wrote it.

    Raises:
        FlopbenchError: it cannot be read, or safetensors is not installed.
    """
    return _read(path)


def _read(path: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], NetworkInfo | None]:
    library = _safetensors()
    try:
        with library.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys() if tensors}  # noqa: SIM118 - no mapping
        return state, NetworkInfo.model_validate_json(metadata[_KEY]) if _KEY in metadata else None
    except (OSError, ValidationError, library.SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise FlopbenchError(f"{path.name} is no file of safetensors: {reason}") from None


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise FlopbenchError("files of weights need safetensors: pip install 'flopbench[train]'") from None
    return safetensors
