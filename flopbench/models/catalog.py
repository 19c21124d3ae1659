"""The names of models: what exists, how it is called, and how a name is read. Imports no torch.

A name is one of

- `vit_b16`, `vit_b16.flop`, `resmlp_s24.hybrid`: a size of the paper's families, and a version of it, which
  is a symmetry and a schedule (`flopbench.symmetries.registry`);
- `layer_norm_768`, `layer_norm_768.flop`: a single layer of this width, and its version;
- `timm:NAME`: a network of timm (`pip install flopbench[timm]`);
- `package.module:callable`: anything importable that returns a `torch.nn.Module`;
- `python:NAME`: a network that a caller in Python gave under that name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flopbench.errors import FlopbenchError, unknown
from flopbench.models.tasks import LINEAR, TASKS, DecoderName, TaskName
from flopbench.symmetries import registry
from flopbench.symmetries.registry import BASELINE, About, Version

# The origin of what has no name of its own, for it was given from Python.
GIVEN = "python"

_FAMILIES = {"vit": "ViT", "resmlp": "ResMLP", "convnext": "ConvNeXt", "layer": "single layers"}


@dataclass(frozen=True)
class Spec:
    """One size of one family: what its class is to be called with."""

    name: str
    family: str
    size: str
    label: str
    patch_size: int
    config: dict[str, Any] = field(hash=False)

    @property
    def versions(self) -> list[Version]:
        """The versions that exist, of the symmetries that have layers for the family."""
        return [version for version in registry.versions() if self._has(version)]

    @property
    def names(self) -> list[str]:
        """A name per version: `vit_b16`, `vit_b16.flop`."""
        return [
            self.name if version == BASELINE else f"{self.name}.{version.name}" for version in self.versions
        ]

    def _has(self, version: Version) -> bool:
        """Whether the version exists. What is invariant on a grid still moves with it, and ordinary
        convolutions see that: a ConvNeXt cannot become invariant early. A layer is one block, and no network
        whose outputs one would average.
        """
        never = {"convnext": ("early_invariant",), "layer": ("hybrid", "early_invariant", "averaged")}
        return self.family in version.about.families and version.schedule not in never.get(self.family, ())

    def version(self, name: str) -> Version:
        """The version of this name.

        Raises:
            FlopbenchError: there is none, or its symmetry has no layers for the family.
        """
        found = registry.find(name)
        if found is None or (self.family in found.about.families and not self._has(found)):
            raise unknown(f"version of {self.name}", name, (version.name for version in self.versions))
        if not self._has(found):
            has = " and ".join(_FAMILIES.get(family, family) for family in found.about.families)
            raise FlopbenchError(
                f"there is no {self.name}.{name}: the symmetry {found.about.name} has layers for {has}, "
                f"none for {_FAMILIES[self.family]}"
            )
        return found

    @property
    def stride(self) -> int:
        """Pixels of the image per cell of the coarsest grid: image sizes are multiples of it."""
        return self.patch_size * 2 ** (len(self.config.get("depths", (0,))) - 1)


def _vit(name: str, size: str, patch: int, width: int, depth: int, heads: int) -> Spec:
    config = {"patch_size": patch, "width": width, "depth": depth, "heads": heads}
    return Spec(name, "vit", f"{size}/{patch}", f"ViT-{size}/{patch}", patch, config)


def _resmlp(name: str, size: str, width: int, depth: int, layer_scale: float) -> Spec:
    config = {"patch_size": 16, "width": width, "depth": depth, "layer_scale": layer_scale}
    return Spec(name, "resmlp", size, f"ResMLP-{size}", 16, config)


def _convnext_iso(name: str, size: str, width: int, depth: int, layer_scale: float | None) -> Spec:
    config = {"patch_size": 16, "widths": (width,), "depths": (depth,), "layer_scale": layer_scale}
    return Spec(name, "convnext", size, f"ConvNeXt-iso-{size}", 16, config)


def _convnext(name: str, size: str, width: int, third: int) -> Spec:
    widths = tuple(width * 2**stage for stage in range(4))
    config = {"patch_size": 4, "widths": widths, "depths": (3, 3, third, 3), "layer_scale": 1e-6}
    return Spec(name, "convnext", size, f"ConvNeXt-{size}", 4, config)


SPECS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        _vit("vit_ti16", "Ti", 16, 192, 12, 3),
        _vit("vit_s16", "S", 16, 384, 12, 6),
        _vit("vit_m16", "M", 16, 512, 12, 8),
        _vit("vit_b16", "B", 16, 768, 12, 12),
        _vit("vit_l16", "L", 16, 1024, 24, 16),
        _vit("vit_h14", "H", 14, 1280, 32, 16),
        _resmlp("resmlp_t12", "T12", 384, 12, 0.1),
        _resmlp("resmlp_s24", "S24", 384, 24, 1e-5),
        _resmlp("resmlp_b24", "B24", 768, 24, 1e-6),
        _resmlp("resmlp_l24", "L24", 1280, 24, 1e-6),
        _convnext_iso("convnext_iso_s", "S", 384, 18, None),
        _convnext_iso("convnext_iso_b", "B", 768, 18, None),
        _convnext_iso("convnext_iso_l", "L", 1024, 36, 1e-6),
        _convnext("convnext_t", "T", 96, 9),
        _convnext("convnext_s", "S", 96, 27),
        _convnext("convnext_b", "B", 128, 27),
        _convnext("convnext_l", "L", 192, 27),
    )
}


LAYER_PATCH = 16
"""Pixels a side of the image for each token of a single layer."""

LAYER_WIDTHS = (192, 384, 768)


def _layer(kind: str, width: int) -> Spec:
    label = f"{kind.replace('_', ' ')} {width}"
    return Spec(f"{kind}_{width}", "layer", str(width), label, LAYER_PATCH, {"kind": kind, "width": width})


LAYERS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        _layer(kind, width)
        for kind in (
            "linear", "mlp", "layer_norm", "gelu", "residual", "attention",
            "patch_embed", "depthwise", "downsample", "token_linear", "token_gelu",
        )
        for width in LAYER_WIDTHS
    )
}  # fmt: skip


# Channels of an attention head in the paper's ViTs.
_HEAD_CHANNELS = 64

ROTARY_CHANNELS = 8
"""Of which a head has a multiple where rotary positions turn it, in any of flopbench's symmetries."""


def heads_of(width: int, divisor: int, channels: float = _HEAD_CHANNELS) -> int:
    """The heads of a ViT of this width: as near to so many channels each as it divides into with multiples of
    `divisor`.
    """
    fitting = [heads for heads in range(1, width + 1) if width % (divisor * heads) == 0]
    return min(fitting or [1], key=lambda heads: abs(width / heads - channels))


@dataclass(frozen=True)
class ModelName:
    """A model's name, read: `spec` and `version` for the paper's families, else `target`."""

    raw: str
    spec: Spec | None = None
    version: Version = BASELINE
    target: str = ""

    @property
    def base(self) -> str:
        """The name of the plain network of the same size; the name itself for a foreign network."""
        return self.spec.name if self.spec else self.raw

    @property
    def given(self) -> bool:
        """Whether it stands for a network that a caller in Python gave."""
        return self.raw.startswith(f"{GIVEN}:")

    @property
    def symmetry(self) -> About | None:
        """What is known of its symmetry, or None for a network that flopbench did not build."""
        return self.version.about if self.spec else None

    @property
    def has_symmetry(self) -> bool:
        """Whether it was built with a symmetry, in all of its blocks or in some."""
        return self.spec is not None and self.version != BASELINE

    @property
    def invariant(self) -> bool:
        """Whether the logits stay the same when its symmetry acts on the image, by construction.

        A layer's output moves with its input instead.
        """
        return self.has_symmetry and not self.is_layer and self.version.invariant

    @property
    def is_layer(self) -> bool:
        """Whether it is a single layer, which has no loss to train with."""
        return self.spec is not None and self.spec.family == "layer"

    @property
    def has_tasks(self) -> bool:
        """Whether it is one of flopbench's networks, which do more than classify: `task=` is an option."""
        return self.spec is not None and not self.is_layer

    @property
    def has_attention(self) -> bool:
        """Whether fused and unfused attention differ, i.e. whether `attention=` is one of its options."""
        return self.spec is not None and self.spec.family == "vit"

    def sized(self, width: int | None, depth: int | None, divisor: int = 1) -> dict[str, Any]:
        """Options of `create_model` for this network with another width (channels) or depth (blocks).

        None leaves it as it is. Heads of a ViT have 64 channels, or as near to it as the width divides into
        with multiples of `divisor`.

        Raises:
            FlopbenchError: it has no one width that could be another.
        """
        if width is None and depth is None:
            return {}
        if self.spec is None or self._size is None:
            raise FlopbenchError(
                f"the width and depth of {self.raw} are not free: choose a ViT, a ResMLP or a ConvNeXt-iso"
            )
        own_width, own_depth = self._size
        if self.spec.family == "convnext":
            return {"widths": (width or own_width,), "depths": (depth or own_depth,)}
        heads = {"heads": heads_of(width, divisor)} if self.spec.family == "vit" and width else {}
        return {"width": width or own_width, "depth": depth or own_depth, **heads}

    @property
    def _size(self) -> tuple[int, int] | None:
        """Channels and blocks of a network that has one width."""
        config = self.spec.config if self.spec and not self.is_layer else {}
        if "width" in config:
            return config["width"], config["depth"]
        widths = config.get("widths", ())
        return (widths[0], config["depths"][0]) if len(widths) == 1 else None

    def label(self, width: int | None = None, depth: int | None = None, patch_size: int | None = None) -> str:
        """`E(ViT-B/16)`; of another width or depth `E(ViT-512/16)`, `E(ViT-768×4/16)`: channels × blocks."""
        if self.spec is None:
            return self.target if self.given else self.raw
        label = self.spec.label
        if (width or depth or patch_size) and self._size:
            size, slash, patch = self.spec.size.partition("/")
            if width or depth:
                size = f"{width or self._size[0]}{f'×{depth}' if depth else ''}"
            patch = patch_size if slash and patch_size else patch
            label = f"{label.removesuffix(self.spec.size)}{size}{slash}{patch}"
        return self.version.label(label)

    def label_with(self, options: Mapping[str, Any]) -> str:
        """The label of the network that `options` of its class make: `E(ViT-96×4/7)` where they resize it."""
        widths, depths = options.get("widths", ()), options.get("depths", ())
        if max(len(widths), len(depths)) > 1:
            size = [f"of width {width}" for width in widths[:1]] + [f"of {sum(depths)} blocks"] * bool(depths)
            return " ".join([self.label(), *size])
        width = widths[0] if widths else options.get("width")
        depth = depths[0] if depths else options.get("depth")
        return self.label(width, depth, options.get("patch_size"))

    def check_task(self, task: TaskName, decoder: DecoderName) -> None:
        """Raise unless the network can have the task, and come to pixels by this decoder.

        Raises:
            FlopbenchError: it is none of flopbench's networks, or has no answers of this kind.
        """
        about = TASKS[task]
        if not about.decodes and decoder != LINEAR:
            raise FlopbenchError(
                f"task {task} has no decoder, so none that is {decoder}: choose a task of pixels, "
                f"{', '.join(name for name, other in TASKS.items() if other.decodes)}"
            )
        if about.classifies:
            return
        if not self.has_tasks:
            raise FlopbenchError(
                f"{self.raw} has no task {task}: name a ViT, a ResMLP or a ConvNeXt of flopbench"
            )
        if task == "features" and self.version.averaged:
            raise FlopbenchError(
                f"{self.raw} has no features: what it averages are answers; choose another task"
            )
        early = self.version.schedule == "early_invariant"
        if early and self.spec is not None and self.spec.family == "resmlp":
            raise FlopbenchError(
                f"{self.raw} has no task {task}: its tokens are those of irreps, on no grid; "
                "take an equivariant version"
            )
        if early and (decoder != LINEAR or about.kind == "vectors"):
            raise FlopbenchError(
                f"{self.raw} has invariants alone at its end, of which no {decoder} decoder makes {task} "
                "that move with the image: choose decoder linear, for segmentation or depth"
            )

    def check_image_size(self, image_size: tuple[int, int], options: Mapping[str, Any] | None = None) -> None:
        """Raise unless the network takes images of `image_size` (height, width) in pixels.

        Args:
            image_size: pixels.
            options: of `create_model`, which may give it patches of another size.

        Raises:
            FlopbenchError: a side is no multiple of the stride, or the grid is not what the symmetry wants.
        """
        if self.spec is None:
            return
        patch_size = (options or {}).get("patch_size", self.spec.patch_size)
        if not isinstance(patch_size, int) or patch_size < 1:
            raise FlopbenchError(
                f"patch_size of {self.raw} must be a positive number of pixels, got {patch_size!r}"
            )
        stride = self.spec.stride * patch_size // self.spec.patch_size
        square_even = self.version.about.square_even
        unit = 2 * stride if square_even else stride
        for side, pixels in zip(("height", "width"), image_size, strict=True):
            if pixels < stride or pixels % stride:
                raise FlopbenchError(
                    f"image {side} {pixels} does not suit {self.raw}: "
                    f"it must be a multiple of {unit}, e.g. {_near(pixels, unit)}"
                )
        height, width = image_size
        if square_even and (height != width or height % unit):
            near = _near((height + width) / 2, unit)
            raise FlopbenchError(
                f"image size {height}×{width} does not suit {self.raw}: {self.version.about.name} wants a "
                f"square with an even number of cells of {stride} pixels each way, e.g. {near}×{near}"
            )

    def check_positions(self, positions: str) -> None:
        """Raise unless the network can have positions that are "learnt" or "rope".

        Raises:
            FlopbenchError: rotary positions would break its symmetry.
        """
        if self.has_attention and positions == "rope" and self.version.schedule == "early_invariant":
            raise FlopbenchError(f"{self.raw} has no rotary positions: {registry.NO_ROPE}")


def _near(pixels: float, unit: int) -> int:
    """The multiple of `unit` that is nearest to a number of pixels."""
    return max(1, round(pixels / unit)) * unit


def parse_name(name: str) -> ModelName:
    """Read a model's name without importing torch or the model.

    Raises:
        FlopbenchError: no such model or version, with the nearest ones that exist.
    """
    if ":" in name:
        origin, target = name.split(":", 1)
        if target and re.fullmatch(r"[A-Za-z_][\w.]*", origin):
            return ModelName(name, target=target)
        raise FlopbenchError(f"model {name!r} is not of the form timm:NAME or package.module:callable")
    base, dot, version = name.partition(".")
    spec = SPECS.get(base) or LAYERS.get(base)
    if spec is None:
        raise unknown("model", name, SPECS)
    if not dot:
        return ModelName(name, spec)
    return ModelName(name, spec, spec.version(version))


def label_of(name: str) -> str:
    """What people read: `ViT-B/16`, `E(ViT-B/16)`, `D8(ViT-B/16)`; else the name."""
    return parse_name(name).label()
