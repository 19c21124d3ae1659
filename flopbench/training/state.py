"""Checkpoints: what a training needs to go on, and beside it the weights that others read.

`checkpoint.pt` has all; files of safetensors have a network's weights alone, and say which network that is.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from flopbench.errors import FlopbenchError
from flopbench.results import write_atomically
from flopbench.results.training_folder import BEST, CHECKPOINT, EMA, WEIGHTS
from flopbench.results.trainings import NetworkInfo
from flopbench.training.loop import Trainer
from flopbench.training.weights import save_weights

# Characters of what torch says of weights that do not fit.
_REASON = 300


def save(
    folder: Path,
    trainer: Trainer,
    info: NetworkInfo,
    *,
    spent: Mapping[str, Any] | None = None,
    best: bool = False,
) -> None:
    """Save a training into a folder, over what was saved there before; every process calls it.

    Args:
        folder: of a training, see `flopbench.results.training_folder`.
        trainer: what is saved.
        info: which network it is; `recipe` and `step` are filled in.
        spent: plain values that `load` gives back.
        best: whether its weights, averaged where the recipe averages them, are the best so far.

    Raises:
        FlopbenchError: a file cannot be written. Of each there is then the one from before, whole; the
            checkpoint is written last.
    """
    state = {**trainer.state_dict(), "spent": dict(spent or {})}
    if not trainer.world.first:
        return
    info = info.model_copy(update={"recipe": trainer.recipe.name, "step": trainer.step})
    checkpoint = io.BytesIO()
    torch.save(state, checkpoint)
    with written_whole(folder):
        save_weights(folder / WEIGHTS, state["model"], info)
        if "ema" in state:
            save_weights(folder / EMA, state["ema"], info)
        if best:
            save_weights(folder / BEST, state.get("ema", state["model"]), info)
        write_atomically(folder / CHECKPOINT, checkpoint.getbuffer())


@contextmanager
def written_whole(folder: Path) -> Iterator[None]:
    """Within it, what a training has in its folder is written, each file whole or not at all.

    Raises:
        FlopbenchError: one cannot be written: the disk is full, for example.
    """
    try:
        yield
    except OSError as error:
        raise FlopbenchError(
            f"cannot save the training in {folder}: {error.strerror}; its last checkpoint is kept: "
            "make room, then resume"
        ) from None


def load(folder: Path, trainer: Trainer) -> dict[str, Any]:
    """Go on from a folder's checkpoint; every process calls it.

    Returns:
        The `spent` that it was saved with.

    Raises:
        FlopbenchError: there is none, it is damaged, or it is of another network or recipe.
    """
    path = folder / CHECKPOINT
    try:
        # What can be a tensor or a plain value alone: a checkpoint may come from anybody.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of what is no checkpoint torch raises all kinds
        refused = isinstance(error, FileNotFoundError | PermissionError)
        reason = error.strerror if refused else "it is damaged; remove it to begin at the first step"
        raise FlopbenchError(f"cannot read the checkpoint {path}: {reason}") from None
    try:
        trainer.load_state_dict(state)
        return state["spent"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:_REASON]
        raise FlopbenchError(f"{path} is of another network or recipe: {reason}") from None
