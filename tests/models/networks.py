"""Small networks of every family, with the paper's structure."""

from typing import Any

from flopbench.models.convnext import ConvNeXt
from flopbench.models.resmlp import ResMLP
from flopbench.models.vit import VisionTransformer

VERSIONS = {
    "vit": ("plain", "flop", "hybrid", "early_invariant"),
    "resmlp": ("plain", "flop", "hybrid", "early_invariant"),
    "convnext": ("plain", "flop", "hybrid"),
    "convnext_iso": ("plain", "flop", "hybrid"),
}
ALL = [(family, version) for family, versions in VERSIONS.items() for version in versions]
INVARIANT = [pair for pair in ALL if pair[1] in ("flop", "early_invariant")]


def build(family, version="flop", image_size=(8, 12), num_classes=5, **options) -> Any:
    """A network of four blocks; images of multiples of 4 pixels."""
    common = {"image_size": image_size, "num_classes": num_classes, "symmetry": version}
    if family == "vit":
        config = {"patch_size": 4, "width": 16, "depth": 4, "heads": 2}
        return VisionTransformer(**{**common, **config, **options})
    if family == "resmlp":
        config = {"patch_size": 4, "width": 12, "depth": 4}
        return ResMLP(**{**common, **config, **options})
    if family == "convnext":
        config = {"patch_size": 2, "widths": (8, 16), "depths": (3, 1), "layer_scale": 1e-6}
    else:
        config = {"patch_size": 4, "widths": (16,), "depths": (4,)}
    return ConvNeXt(**{**common, **config, **options})


def build_shallow(family, version="flop", **options) -> Any:
    """The same of two blocks, for what takes long."""
    depth = {"convnext": {"depths": (1, 1)}, "convnext_iso": {"depths": (2,)}}.get(family, {"depth": 2})
    return build(family, version, **depth, **options)
