"""Weights trained elsewhere: the authors' released checkpoints, and timm's."""

import argparse
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError, brief
from flopbench.models.convnext import ConvNeXt
from flopbench.models.layouts import RELEASED, TIMM, Layout, sources
from flopbench.models.recognise import DINOV2, Recognised, listed, recognise
from flopbench.models.resmlp import ResMLP
from flopbench.models.vit import VisionTransformer
from flopbench.symmetries import Head
from flopbench.symmetries.registry import ScheduleName

Join = Literal["hybrid", "early-invariant"]
State = dict[str, Tensor]

_JOINS: dict[Join, ScheduleName] = {"hybrid": "hybrid", "early-invariant": "early_invariant"}
_NETWORKS = {"vit": VisionTransformer, "resmlp": ResMLP, "convnext": ConvNeXt, "convnext_iso": ConvNeXt}

# Entries that hold no weights: indices of the token order, and the zero centres of antisymmetric kernels.
_CONSTANTS = ("permutation", "left_idx", "right_idx", "zero_center")


@torch.no_grad()
def load_released_checkpoint(
    source: str | Path | Mapping[str, Any],
    *,
    join: Join | None = None,
    head: Head | None = None,
    num_heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> nn.Module:
    """The network of a checkpoint that the authors of flop or octic networks released, in eval mode.

    Which network it is, its sizes included, follows from the names and shapes of its entries, so that
    networks of any size load.

    Args:
        source: the file, or its contents: a state dict or `{"model": state_dict}`.
        join: how the halves of a ViT were joined, "hybrid" or "early-invariant": files of H(X) and I(X)
            have the same entries. Checked where the file tells it, as that of H8(X) or I8(X) does.
        head: checked against the file, which tells it: "invariant" or "absolute".
        num_heads: attention heads of a ViT, where its size is none of the paper's.
        image_size: pixels, one number for square images or (height, width), if it is not the size that the
            network was trained for. A ViT's embedding of positions is interpolated, bicubically and so that
            the network keeps its symmetry.

    Returns:
        A network of fp32 parameters on the CPU that takes images `[B, 3, H, W]` of that size, a ConvNeXt
        those of any size. E(ResMLP) has the GELU that it was trained with.

    Raises:
        FlopbenchError: the file cannot be read; the network is none of the papers'; an argument is
            missing or contradicts the file; the network cannot have images of that size; or entries are
            missing, unexpected or misshapen, or no dense real tensors. Nothing is allocated before all that
            is known.
    """
    if num_heads is not None and not (isinstance(num_heads, int) and num_heads > 0):
        raise FlopbenchError(f"num_heads must be a positive whole number, got {brief(num_heads)}")
    content = source if isinstance(source, Mapping) else read_checkpoint(Path(source))
    state = checked_weights(state_dict_in(content))
    found = recognise(state, num_heads)
    own_head = found.config.get("head", "invariant")
    if head is not None and found.symmetry == "flop" and head != own_head:
        raise FlopbenchError(f"the checkpoint's head is {own_head!r}, not {head!r}")
    config = {**found.config, "symmetry": found.version(_schedule(found, join))}
    stride = found.config["patch_size"] * 2 ** (len(found.config.get("widths", (0,))) - 1)
    size = pixels(found.family, stride, found.config["image_size"], image_size)
    model = _on_meta(found.family, config)
    resized = _on_meta(found.family, {**config, "image_size": size})
    # What a class token has beside its invariant part is zero by the mathematics, and no parameter here.
    for key in [key for key in state if re.fullmatch(r"cls_token\.[1-4]", key)]:
        if state.pop(key).any():
            raise FlopbenchError(f"{key} must be zero: a class token that varies breaks the symmetry")
    layout = RELEASED[found.family]
    _check_fit(model, state, layout)
    _fill(model.to_empty(device="cpu"), state, layout)
    if found.family == "vit":
        model.grid = resized.grid
        model.pos_embed = model.pos_embed.resized(model.grid)
    return model.eval()


def _schedule(found: Recognised, join: Join | None) -> ScheduleName:
    """In which blocks the network has its symmetry: what the checkpoint tells, and the caller."""
    if found.schedule == "equivariant":
        if join is not None:
            raise FlopbenchError(
                f"join={join!r} is for networks of two halves: all blocks of this one are {found.symmetry}"
            )
        return found.schedule
    if found.schedule is None:
        if join not in _JOINS:
            raise FlopbenchError(
                "the checkpoint does not tell H(X) from I(X): give join='hybrid' or join='early-invariant'"
            )
        return _JOINS[join]
    own = next(name for name, schedule in _JOINS.items() if schedule == found.schedule)
    if join not in (None, own):
        raise FlopbenchError(f"the halves of the checkpoint's network are joined {own!r}, not {join!r}")
    return found.schedule


def pixels(
    family: str, stride: int, own: tuple[int, int], image_size: int | tuple[int, int] | None
) -> tuple[int, int]:
    """Height and width of the images that are asked for, or else of those that a network was trained for.

    Args:
        family: of the network.
        stride: of whose pixels sides are multiples.
        own: (height, width) that it was trained for.
        image_size: asked for.

    Raises:
        FlopbenchError: the network cannot have images of that size.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if sides is None or sides == own:
        return own
    if not (
        isinstance(sides, tuple)
        and len(sides) == 2
        and all(isinstance(side, int) and side > 0 and side % stride == 0 for side in sides)
    ):
        raise FlopbenchError(
            f"image_size must be a positive multiple of {stride} pixels, or two of (height, width), "
            f"got {brief(image_size)}"
        )
    if family == "resmlp":
        raise FlopbenchError(
            "a ResMLP's matrices mix as many tokens as it was trained for: "
            f"it takes images of {own[0]}×{own[1]} alone"
        )
    return sides


def _on_meta(family: str, config: dict[str, Any]) -> Any:
    """The network without values, which takes no memory; sizes that it cannot have show."""
    try:
        with torch.device("meta"):
            return _NETWORKS[family](**config)
    except (ValueError, TypeError, RuntimeError) as error:
        reason, (height, width) = str(error).partition("\n")[0], config["image_size"]
        raise FlopbenchError(
            f"cannot build the checkpoint's network for images of {height}×{width}: {reason}"
        ) from error


@torch.no_grad()
def load_timm_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Load the state dict of timm's `deit3_*`, `resmlp_*` or `convnext_*` into our baseline of the same size.

    With `positions="rope"`, `registers=4` and `eps=1e-5` a ViT is timm's `vit_*_dinov3` or `*_dinov3_qkvb`
    that pools by the class token (`global_pool="token"`) and has GELUs in its MLPs.

    Args:
        model: a plain network of flopbench; the same logits as timm's come out of it afterwards.
        state_dict: timm's.

    Returns:
        The same model.

    Raises:
        FlopbenchError: entries are missing, unexpected or misshapen, or no dense real tensors.
    """
    family = {VisionTransformer: "vit", ResMLP: "resmlp", ConvNeXt: "convnext"}.get(type(model))
    if family is None:
        raise FlopbenchError(
            f"timm's weights do not fit {type(model).__name__}: build a baseline of flopbench"
        )
    state = checked_weights(state_dict_in(state_dict))
    if isinstance(model, VisionTransformer) and model.rotary is not None:
        family = "vit_rope" if any(name.endswith(".q_bias") for name in state) else "vit_rope_unbiased"
    _check_fit(model, state, TIMM[family])
    _fill(model, state, TIMM[family])
    return model


def read_checkpoint(path: Path) -> Any:
    """What is in a file that `torch.save` wrote, on the CPU; of a file that is mapped nothing is read yet.

    Raises:
        FlopbenchError: it cannot be read, or holds more than tensors and plain values.
    """
    if not os.path.isfile(path):  # Path.is_file() raises for names that are too long
        raise FlopbenchError(f"no checkpoint at {path}")
    try:
        # Training scripts keep their command line beside the weights; a namespace is harmless.
        # A file that is mapped takes no memory, whatever sizes it claims.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # of an arbitrary file torch raises what happens to go wrong
        # Of what it refuses torch says first how to take it all the same, which is no advice for a file.
        if refused := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            reason = f"it holds {refused[1]}"
        else:
            told = str(error).partition("\n")[0] if isinstance(error, OSError | RuntimeError) else ""
            reason = told or "torch.save did not write it"
        raise FlopbenchError(f"{path.name} is no checkpoint of tensors alone: {reason}") from None


def state_dict_in(content: Any) -> State:
    """The state dict of a checkpoint's contents, by names without the prefixes of wrapped networks.

    Of what timm's training writes, these are the averaged weights where there are some.

    Raises:
        FlopbenchError: there is none, or an entry has no printable name.
    """
    if isinstance(content, Mapping) and isinstance(content.get("teacher"), Mapping):
        raise FlopbenchError(DINOV2)
    for key in ("model", "state_dict_ema", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise FlopbenchError('a checkpoint is a state dict or {"model": state_dict}; this is neither')
    for key in content:
        if not (isinstance(key, str) and key.isprintable()):
            raise FlopbenchError(f"a checkpoint's entries have printable names, got {brief(key)}")
    return {re.sub(r"^(module\.|_orig_mod\.)+", "", key): value for key, value in content.items()}


def checked_weights(state: Mapping[str, Tensor]) -> State:
    """The entries that hold weights.

    Raises:
        FlopbenchError: one cannot be copied from.
    """
    weights = {name: value for name, value in state.items() if not name.endswith(_CONSTANTS)}
    for name, value in weights.items():
        if problem := _unfit(value):
            raise FlopbenchError(f"{listed([name])} in the checkpoint {problem}")
    return weights


def _unfit(value: Tensor) -> str:
    """Why weights cannot be copied from a tensor, or nothing."""
    if value.layout != torch.strided or not value.is_floating_point():
        kind = "quantised" if value.is_quantized else f"{value.layout} of {value.dtype}".replace("torch.", "")
        return f"is {kind}: give dense tensors of real numbers"
    if value.is_meta:
        return "is on the meta device: it has a shape and no values"
    if not value.numel():
        return f"is empty, {list(value.shape)}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"claims more values than it holds, {list(value.shape)}: save what `contiguous()` gives"
    return ""


def _check_fit(model: nn.Module, state: State, layout: Layout) -> None:
    """Raise unless a foreign state dict fits the parameters of `model`, which may be on the meta device."""
    shapes = {
        key: shape
        for _, source in sources(model, layout)
        for key, shape in zip(source.keys, source.shapes, strict=True)
    }
    check_shapes(type(model).__name__, shapes, state)


def check_shapes(network: str, shapes: Mapping[str, tuple[int, ...]], state: State) -> None:
    """Raise FlopbenchError unless a state dict has the entries that a network wants, and no others."""
    missing = sorted(shapes.keys() - state.keys())
    unexpected = sorted(state.keys() - shapes.keys())
    misshapen = [
        f"{key} {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in shapes.items()
        # 1×1 convolutions are matrices, and a gain may be shaped to broadcast.
        if key in state and _squeezed(state[key].shape) != _squeezed(shape)
    ]
    complaints = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if any(complaints.values()):
        told = "; ".join(f"{what}: {listed(names)}" for what, names in complaints.items() if names)
        raise FlopbenchError(f"the checkpoint does not fit {network}: {told}")


def _fill(model: nn.Module, state: State, layout: Layout) -> None:
    """Copy a foreign state dict that fits into the parameters of `model`."""
    for parameter, source in sources(model, layout):
        entries = (state[key].reshape(shape) for key, shape in zip(source.keys, source.shapes, strict=True))
        parameter.copy_(source.compose(*entries))


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
