"""Which network a state dict of the authors is of: family, version and sizes, by its entries."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.models.catalog import SPECS
from flopbench.symmetries.octic import INVARIANTS
from flopbench.symmetries.registry import BASELINE, BUILTIN, ScheduleName

State = Mapping[str, Tensor]

DINOV2 = "this is a checkpoint of DINOv2, a backbone without a classifier: flopbench loads those of DeiT III"

# Names of entries that one line lists.
_FEW = 20


@dataclass
class Recognised:
    """What a state dict tells of its network.

    Attributes:
        family: "vit", "resmlp", "convnext" or "convnext_iso".
        symmetry: "plain", "flop" or "octic".
        schedule: in which blocks it has the symmetry; None where half of them have it and nothing tells how
            they are joined to the others.
        config: what the network's class is to be called with, but for its version.
    """

    family: str
    symmetry: str
    schedule: ScheduleName | None
    config: dict[str, Any]

    def version(self, schedule: ScheduleName) -> str:
        """The name of the version."""
        versions = BUILTIN[self.symmetry].versions
        return next(version.name for version in versions if version.schedule == schedule)

    @property
    def told(self) -> str:
        """What it is, in words: its names in the catalogue, or else its family, symmetry and size."""
        size = {key: self.config[key] for key in ("width", "depth", "widths", "depths") if key in self.config}
        size["patch_size"] = self.config["patch_size"]
        spec = next((spec for spec in SPECS.values() if size.items() <= spec.config.items()), None)
        if spec is None:
            sizes = ", ".join(f"{key} {value}" for key, value in size.items())
            return f"a {self.family} of {sizes}, symmetry {self.symmetry}"
        schedules = (self.schedule,) if self.schedule else ("hybrid", "early_invariant")
        versions = (self.version(schedule) for schedule in schedules)
        names = (spec.name if name == BASELINE.name else f"{spec.name}.{name}" for name in versions)
        return " or ".join(names)


class _Stem(NamedTuple):
    """How the patch embedding of a symmetry is stored.

    Attributes:
        entry: of kernels `[width / channels, 3, P / pixels, ...]`.
        scale: one of a block that has the symmetry.
    """

    symmetry: str
    entry: str
    channels: int = 1
    pixels: int = 1
    scale: str = ""


_STEMS = (
    _Stem("flop", "proj_sym.weight", channels=2, scale="norm1.scaling.alpha_sym"),
    _Stem("octic", "lift8.conv_A1.weight", channels=8, pixels=2, scale="norm1.scaling.alpha_A1"),
)


def recognise(state: State, num_heads: int | None) -> Recognised:
    """What `state` tells; `num_heads` is that of a ViT whose size is none of the paper's, else None.

    Raises:
        FlopbenchError: it is of no network that is known here, or its entries make none.
    """
    try:
        if any(key.startswith("mask_token") for key in state):
            raise FlopbenchError(DINOV2)
        if "pos_embed" in state or "pos_embed.0" in state:
            return _vit(state, num_heads)
        if "stem.weight" in state or "stem.proj_sym.weight" in state:
            return _convnext(state, "convnext_iso", "stem")
        if any(key.startswith("downsample_layers.0.0.") for key in state):
            return _convnext(state, "convnext", "downsample_layers.0.0")
        if "blocks.0.norm1.alpha" in state or "blocks.0.norm1.alpha_sym" in state:
            return _resmlp(state)
    except KeyError as error:
        raise FlopbenchError(f"the checkpoint lacks {error.args[0]}, which tells its size") from None
    except (IndexError, ValueError) as error:
        raise FlopbenchError(f"the entries of the checkpoint make no network: {error}") from None
    some = listed(list(state)[:4]) or "none"
    raise FlopbenchError(f"the checkpoint is of no network of the papers; its first entries: {some}")


def listed(names: list[str]) -> str:
    """As many of the names as a line has room for."""
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(name[:100] for name in names[:_FEW]) + more


def _vit(state: State, num_heads: int | None) -> Recognised:
    stem, config = _patches(state, "patch_embed")
    depth, symmetry = _depth(state, "blocks"), stem.symmetry
    config["depth"] = depth
    config["heads"] = num_heads or _known_heads(config)
    config["image_size"] = _square(_tokens(state, symmetry), config["patch_size"])
    if symmetry == "plain":
        return Recognised("vit", symmetry, "equivariant", config)
    having = sum(f"blocks.{index}.{stem.scale}" in state for index in range(depth))
    if having not in (depth, depth // 2):
        raise ValueError(f"{having} of {depth} blocks are equivariant, neither all nor half")
    schedule: ScheduleName | None = "equivariant" if having == depth else None
    if symmetry == "flop":
        config["head"] = _head(state, config["width"]) if schedule else "invariant"
    elif "invariant_proj.weight" in state or schedule:
        config["invariants"] = _invariants(state["invariant_proj.weight"].shape[1], config["width"])
        schedule = schedule or "early_invariant"
    else:
        schedule = "hybrid"
    return Recognised("vit", symmetry, schedule, config)


def _tokens(state: State, symmetry: str) -> int:
    """Of the whole grid: what is learnt of flop's positions is half of them, of the octic ones a quarter."""
    if symmetry == "octic":
        rows, columns = state["pos_embed.0"].shape[:2]
        if rows != columns:
            raise ValueError(f"pos_embed.0 has {rows}×{columns} positions: no quarter of a square grid")
        return 4 * rows * columns
    return 2 * state["pos_embed.0"].shape[1] if symmetry == "flop" else state["pos_embed"].shape[1]


def _invariants(columns: int, width: int) -> str:
    """Which invariants so many columns of `invariant_proj` are for."""
    known = {own.eighths * width // 8: kind for kind, own in INVARIANTS.items()}
    if columns in known:
        return known[columns]
    other = {2 * width: "max filtering", width: "canonisation"}.get(columns)
    what = f"those of {other}, which flopbench does not have" if other else "those of no known invariants"
    has = ", ".join(f"{kind} {count}" for count, kind in known.items())
    raise FlopbenchError(f"invariant_proj has {columns} columns: {what}; at this width {has}")


def _known_heads(config: dict[str, Any]) -> int:
    """Those of the paper's ViT of this width and depth."""
    width, depth, patch = size = config["width"], config["depth"], config["patch_size"]
    for spec in SPECS.values():
        if spec.family == "vit" and size == tuple(spec.config[k] for k in ("width", "depth", "patch_size")):
            return spec.config["heads"]
    raise FlopbenchError(
        f"a ViT of width {width}, depth {depth}, patches of {patch} is none of the paper's: give num_heads"
    )


def _resmlp(state: State) -> Recognised:
    stem, config = _patches(state, "patch_embed")
    if stem.symmetry == "flop":
        tokens = 2 * state["blocks.0.attn.lin_sym.weight"].shape[0]
        config |= {"activation": "quick_gelu", "head": _head(state, config["width"])}
    else:
        tokens = state["blocks.0.attn.weight"].shape[0]
    config["depth"] = _depth(state, "blocks")
    config["image_size"] = _square(tokens, config["patch_size"])
    return Recognised("resmlp", stem.symmetry, "equivariant", config)


def _convnext(state: State, family: str, at: str) -> Recognised:
    stem, config = _patches(state, at, "weight")
    widths, depths = [config.pop("width")], []
    if family == "convnext_iso":
        depths.append(_depth(state, "blocks"))
    else:
        for stage in range(_depth(state, "stages")):
            depths.append(_depth(state, f"stages.{stage}"))
            kernel = "sym_to_sym.weight" if stem.symmetry == "flop" else "weight"
            if stage:
                halved = state[f"downsample_layers.{stage}.1.{kernel}"]
                widths.append(stem.channels * halved.shape[0])
    if stem.symmetry == "flop":
        config["head"] = _head(state, widths[-1])
    size = config["patch_size"] * 2 ** (len(widths) - 1) * 7
    config |= {
        "widths": tuple(widths),
        "depths": tuple(depths),
        "layer_scale": 1e-6 if any(".gamma" in key for key in state) else None,
        # Convolutions take images of any size that suits the strides.
        "image_size": (size, size),
    }
    return Recognised(family, stem.symmetry, "equivariant", config)


def _patches(state: State, at: str, plain: str = "proj.weight") -> tuple[_Stem, dict[str, Any]]:
    """What patch embedding and head tell of any of the networks; `plain` are a plain one's kernels."""
    found = next((stem for stem in _STEMS if f"{at}.{stem.entry}" in state), _Stem("plain", plain))
    kernels = state[f"{at}.{found.entry}"]
    return found, {
        "patch_size": kernels.shape[2] * found.pixels,
        "width": kernels.shape[0] * found.channels,
        "num_classes": state["head.weight"].shape[0],
    }


def _head(state: State, width: int) -> str:
    """What the head of an equivariant network sees."""
    return "absolute" if state["head.weight"].shape[1] == width else "invariant"


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
