"""Labels of networks, read: which version of which size of which family they stand for."""

import re
from dataclasses import dataclass

from flopbench.models.catalog import SPECS
from flopbench.symmetries.registry import BASELINE, Version, versions

_FAMILIES = {spec.label.removesuffix(f"-{spec.size}"): None for spec in SPECS.values()}
_SIZES = {spec.size.partition("/")[0]: None for spec in SPECS.values()}

# Somebody's own network may be called `ViT-mine`, and is none of ours.
_NETWORK = re.compile(
    rf"(?P<family>{'|'.join(sorted(_FAMILIES, key=len, reverse=True))})"
    rf"-(?P<size>(?:{'|'.join(_SIZES)}|\d+(?:×\d+)?)(?:/\d+)?)"
)


@dataclass(frozen=True)
class Label:
    """Of `E(ViT-B/16)`: the version E, the family `ViT`, the size `B/16`."""

    version: Version
    family: str
    size: str

    @property
    def network(self) -> str:
        """The label of the plain network of the same size."""
        return f"{self.family}-{self.size}"


def read(label: str) -> Label | None:
    """A label of ours, read; None of any other network, and of a symmetry that is not registered here."""
    for version in versions():
        before, after = version.label("\0").split("\0")
        inside = label.removeprefix(before).removesuffix(after)
        network = _NETWORK.fullmatch(inside)
        if network and version.label(inside) == label:
            return Label(version, network["family"], network["size"])
    return None


def family_of(label: str) -> str | None:
    """The family of a network's label (`E(ViT-B/16)` → `ViT`), None for a network that is not ours."""
    own = read(label)
    return own and own.family


def version_of(label: str) -> Version:
    """The version of `E(ViT-B/16)`; the plain one of what is not ours."""
    own = read(label)
    return own.version if own else BASELINE


def size_of(label: str) -> str:
    """`B/16` of `E(ViT-B/16)`; nothing of what is not ours."""
    own = read(label)
    return own.size if own else ""
