"""Networks of a family at any width: what `create_model` is to be called with."""

from typing import Any

from flopbench.errors import unknown

# A size of each family whose name carries the options; only the width and the depth differ from it.
FAMILIES = {"vit": "vit_s16", "resmlp": "resmlp_s24", "convnext_iso": "convnext_iso_s"}
# Channels of an attention head in the paper's ViTs.
HEAD_CHANNELS = 64


def model_of(family: str) -> str:
    """The name of the plain network that stands for a family.

    Raises:
        FlopbenchError: no such family.
    """
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    return FAMILIES[family]


def family_of(name: str) -> str | None:
    """The family of a catalogue name whose width can be chosen; None for the others."""
    base = name.partition(".")[0]
    prefixes = sorted(FAMILIES, key=len, reverse=True)
    return next((family for family in prefixes if base.startswith(f"{family}_")), None)


def width_options(family: str, width: int, depth: int | None = None) -> dict[str, Any]:
    """Options of `create_model` for a network of `width` channels and, where given, `depth` blocks.

    Heads of a ViT have 64 channels, or as near to it as the width divides into.

    Raises:
        FlopbenchError: no such family.
    """
    model_of(family)
    if family == "convnext_iso":
        return {"widths": (width,), **({"depths": (depth,)} if depth else {})}
    options: dict[str, Any] = {"width": width, **({"depth": depth} if depth else {})}
    if family == "vit":
        options["heads"] = _heads(width)
    return options


def _heads(width: int) -> int:
    fitting = [heads for heads in range(1, width + 1) if width % (2 * heads) == 0]
    return min(fitting or [1], key=lambda heads: abs(width / heads - HEAD_CHANNELS))
