"""Weights trained elsewhere: the authors' released checkpoints, and timm's.

Which network a released checkpoint is of, its sizes included, follows from the names and shapes of its
entries, so that networks of any size load.
"""

import argparse
import math
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError, brief
from flopbench.models.catalog import SPECS
from flopbench.models.convnext import ConvNeXt
from flopbench.models.layouts import RELEASED, TIMM, Layout, sources
from flopbench.models.resmlp import ResMLP
from flopbench.models.vit import VisionTransformer
from flopbench.symmetries import Head

Join = Literal["hybrid", "early-invariant"]
State = dict[str, Tensor]

# Entries that hold no weights: indices of the token order, and the zero centres of antisymmetric kernels.
_CONSTANTS = ("permutation", "left_idx", "right_idx", "zero_center")

# Names of entries that one line lists.
_FEW = 20


@torch.no_grad()
def load_released_checkpoint(
    source: str | Path | Mapping[str, Any],
    *,
    join: Join | None = None,
    head: Head | None = None,
    num_heads: int | None = None,
) -> nn.Module:
    """The network of a checkpoint that the paper's authors released, with its weights, in eval mode.

    Args:
        source: the file, or its contents: a state dict or `{"model": state_dict}`.
        join: how the halves of a ViT were joined, "hybrid" or "early-invariant": files of H(X) and I(X)
            have the same entries.
        head: checked against the file, which tells it: "invariant" or "absolute".
        num_heads: attention heads of a ViT, where its size is none of the paper's.

    Returns:
        A network of fp32 parameters on the CPU that takes images `[B, 3, H, W]`, for ViT and ResMLP
        square ones of the size it was trained for. E(ResMLP) has the GELU that it was trained with.

    Raises:
        FlopbenchError: the file cannot be read; the network is none of the paper's; an argument is
            missing or contradicts the file; or entries are missing, unexpected or misshapen, or no dense
            real tensors. Nothing is allocated before all that is known.
    """
    if num_heads is not None and not (isinstance(num_heads, int) and num_heads > 0):
        raise FlopbenchError(f"num_heads must be a positive whole number, got {brief(num_heads)}")
    state = _read(source)
    family, config = _infer(state, num_heads)
    found = "absolute" if config.pop("absolute") else "invariant"
    if head is not None and config["symmetry"] == "flop" and head != found:
        raise FlopbenchError(f"the checkpoint's head is {found!r}, not {head!r}")
    config["head"] = found
    if config["symmetry"] == "joined":
        if join not in ("hybrid", "early-invariant"):
            raise FlopbenchError(
                "the checkpoint does not tell H(X) from I(X): give join='hybrid' or join='early-invariant'"
            )
        config["symmetry"] = join.replace("-", "_")
    elif join is not None:
        raise FlopbenchError(
            f"join={join!r} is for H(X) and I(X), the checkpoint is of {config['symmetry']} X"
        )
    network = {"vit": VisionTransformer, "resmlp": ResMLP}.get(family, ConvNeXt)
    try:
        with torch.device("meta"):
            model = network(**config)
    except ValueError as error:
        raise FlopbenchError(f"cannot build the checkpoint's network: {error}") from error
    # The class token's antisymmetric half is zero by the mathematics, and has no parameter here.
    zeros = state.pop("cls_token.1", None) if family == "vit" else None
    if zeros is not None and zeros.any():
        raise FlopbenchError("cls_token.1 must be zero: an antisymmetric class token breaks the symmetry")
    _check_fit(model, state, RELEASED[family])
    _fill(model.to_empty(device="cpu"), state, RELEASED[family])
    return model.eval()


@torch.no_grad()
def load_timm_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Load the state dict of timm's `deit3_*`, `resmlp_*` or `convnext_*` into our baseline of the same size.

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
    state = _weights(state_dict)
    _check_fit(model, state, TIMM[family])
    _fill(model, state, TIMM[family])
    return model


def _read(source: str | Path | Mapping[str, Any]) -> State:
    """The state dict, without wrappers, prefixes and constants."""
    if isinstance(source, Mapping):
        content: Any = source
    else:
        path = Path(source)
        if not os.path.isfile(path):  # Path.is_file() raises for names that are too long
            raise FlopbenchError(f"no checkpoint at {path}")
        try:
            # Training scripts keep their command line beside the weights; a namespace is harmless.
            # A file that is mapped takes no memory, whatever sizes it claims.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(
                    path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
                )
        except Exception as error:  # of an arbitrary file torch raises what happens to go wrong
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise FlopbenchError(f"{path.name} is no checkpoint of tensors alone: {reason}") from None
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise FlopbenchError('a checkpoint is a state dict or {"model": state_dict}; this is neither')
    return _weights(content)


def _weights(content: Mapping[Any, Tensor]) -> State:
    """The entries that hold weights, each of which can be copied from, by their names without prefixes."""
    state: State = {}
    for key, value in content.items():
        if not (isinstance(key, str) and key.isprintable()):
            raise FlopbenchError(f"a checkpoint's entries have printable names, got {brief(key)}")
        name = re.sub(r"^(module\.|_orig_mod\.)+", "", key)
        if name.endswith(_CONSTANTS):
            continue
        problem = _unfit(value)
        if problem:
            raise FlopbenchError(f"{_listed([name])} in the checkpoint {problem}")
        state[name] = value
    return state


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


def _infer(state: State, num_heads: int | None) -> tuple[str, dict[str, Any]]:
    """Family and configuration, by names and shapes; symmetry "joined" where it may be H or I."""
    try:
        if "pos_embed" in state or "pos_embed.0" in state:
            return "vit", _infer_vit(state, num_heads)
        if "stem.weight" in state or "stem.proj_sym.weight" in state:
            return "convnext_iso", _infer_convnext(state, "stem")
        if any(key.startswith("downsample_layers.0.0.") for key in state):
            return "convnext", _infer_convnext(state, "downsample_layers.0.0")
        if "blocks.0.norm1.alpha" in state or "blocks.0.norm1.alpha_sym" in state:
            return "resmlp", _infer_resmlp(state)
    except KeyError as error:
        raise FlopbenchError(f"the checkpoint lacks {error.args[0]}, which tells its size") from None
    except (IndexError, ValueError) as error:
        raise FlopbenchError(f"the entries of the checkpoint make no network: {error}") from None
    some = _listed(list(state)[:4]) or "none"
    raise FlopbenchError(f"the checkpoint is of no network of the paper; its first entries: {some}")


def _infer_vit(state: State, num_heads: int | None) -> dict[str, Any]:
    config, columns = _infer_patches(state, "patch_embed"), "pos_embed"
    depth = _depth(state, "blocks")
    equivariant = sum(f"blocks.{index}.norm1.scaling.alpha_sym" in state for index in range(depth))
    if config["symmetry"] == "flop":
        columns = "pos_embed.0"
        if equivariant < depth:
            config["symmetry"] = "joined"
            config["absolute"] = False
        if equivariant not in (depth, depth // 2):
            raise ValueError(f"{equivariant} of {depth} blocks are equivariant, neither all nor half")
    tokens = state[columns].shape[1] * (2 if columns == "pos_embed.0" else 1)
    width, patch = config["width"], config["patch_size"]
    if num_heads is None:
        known = {
            (spec.config["width"], spec.config["depth"], spec.config["patch_size"]): spec.config["heads"]
            for spec in SPECS.values()
            if spec.family == "vit"
        }
        if (width, depth, patch) not in known:
            raise FlopbenchError(
                f"a ViT of width {width}, depth {depth}, patches of {patch} is none of the paper's: "
                "give num_heads"
            )
        num_heads = known[width, depth, patch]
    return {**config, "depth": depth, "heads": num_heads, "image_size": _square(tokens, patch)}


def _infer_resmlp(state: State) -> dict[str, Any]:
    config = _infer_patches(state, "patch_embed")
    if config["symmetry"] == "flop":
        tokens = 2 * state["blocks.0.attn.lin_sym.weight"].shape[0]
        config["activation"] = "quick_gelu"
    else:
        tokens = state["blocks.0.attn.weight"].shape[0]
    depth = _depth(state, "blocks")
    return {**config, "depth": depth, "image_size": _square(tokens, config["patch_size"])}


def _infer_convnext(state: State, stem: str) -> dict[str, Any]:
    config = _infer_patches(state, stem, projection="")
    widths, depths = [config.pop("width")], []
    if stem == "stem":
        depths.append(_depth(state, "blocks"))
    else:
        for stage in range(_depth(state, "stages")):
            depths.append(_depth(state, f"stages.{stage}"))
            halved = f"downsample_layers.{stage}.1.sym_to_sym.weight"
            if stage and config["symmetry"] == "flop":
                widths.append(2 * state[halved].shape[0])
            elif stage:
                widths.append(state[f"downsample_layers.{stage}.1.weight"].shape[0])
        if config["symmetry"] == "flop":
            config["absolute"] = state["head.weight"].shape[1] == widths[-1]
    scaled = any(".gamma" in key for key in state)
    size = config["patch_size"] * 2 ** (len(widths) - 1) * 7
    return {
        **config,
        "widths": tuple(widths),
        "depths": tuple(depths),
        "layer_scale": 1e-6 if scaled else None,
        # Convolutions take images of any size that suits the strides.
        "image_size": (size, size),
    }


def _infer_patches(state: State, stem: str, projection: str = "proj.") -> dict[str, Any]:
    """What patch embedding and head tell of any of the networks."""
    equivariant = f"{stem}.proj_sym.weight" in state
    patches = state[f"{stem}.proj_sym.weight" if equivariant else f"{stem}.{projection}weight"]
    width = patches.shape[0] * (2 if equivariant else 1)
    classes, features = state["head.weight"].shape
    return {
        "symmetry": "flop" if equivariant else "plain",
        "patch_size": patches.shape[2],
        "width": width,
        "num_classes": classes,
        "absolute": equivariant and features == width,
    }


def _depth(state: State, path: str) -> int:
    """How many modules `path` has, numbered without a gap: a large number alone claims none."""
    pattern = re.compile(rf"{re.escape(path)}\.(\d+)\.")
    found = {match[1] for key in state if (match := pattern.match(key))}
    if not found or found != {str(index) for index in range(len(found))}:
        some = ", ".join(sorted(found)[:5]) or "none"
        raise ValueError(f"{path} should be numbered from 0 without a gap; there are {some[:100]}")
    return len(found)


def _square(tokens: int, patch_size: int) -> tuple[int, int]:
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"{tokens} tokens are no square grid")
    return side * patch_size, side * patch_size


def _check_fit(model: nn.Module, state: State, layout: Layout) -> None:
    """Raise unless a foreign state dict fits the parameters of `model`, which may be on the meta device."""
    shapes = {
        key: shape
        for _, source in sources(model, layout)
        for key, shape in zip(source.keys, source.shapes, strict=True)
    }
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
        told = "; ".join(f"{what}: {_listed(names)}" for what, names in complaints.items() if names)
        raise FlopbenchError(f"the checkpoint does not fit {type(model).__name__}: {told}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(name[:100] for name in names[:_FEW]) + more


def _fill(model: nn.Module, state: State, layout: Layout) -> None:
    """Copy a foreign state dict that fits into the parameters of `model`."""
    for parameter, source in sources(model, layout):
        entries = (state[key].reshape(shape) for key, shape in zip(source.keys, source.shapes, strict=True))
        parameter.copy_(source.compose(*entries))


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
