"""The paper's published figures: `data/paper.csv` and `data/paper-hybrids.csv`.

*Flopping for FLOPs* (Bökman, Nordström, Kahl, ICML 2025, arXiv:2502.05169), read off its figures:
top-1 ±0.1 points, throughput gain ±0.3 points, GFLOPs ±2 %.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

PROTOCOL = "published (A100-40GB, batch 64, fp16 autocast, max-autotune, unfused attention)"

# The paper's family → the beginning of our labels.
_FAMILIES = {"ViT": "ViT", "ResMLP": "ResMLP", "ConvNeXt-isotropic": "ConvNeXt-iso"}

# Somebody's own network may be called `ViT-mine` or `F(ViT-B/16)`, and is not the paper's.
_LABEL = re.compile(
    rf"(?:(?P<version>[EHI])\()?(?P<family>{'|'.join(_FAMILIES.values())})-(?P<size>[A-Z]?\d*(?:×\d+)?(?:/\d+)?)\)?"
)


@dataclass(frozen=True)
class Published:
    """One network as published: GFLOPs of a 224×224 image, ImageNet-1K top-1 in per cent.

    `gain_percent` is the throughput gain over its baseline. None where the paper gives no figure.
    """

    family: str
    version: str
    size: str
    gflops: float
    top1: float | None = None
    gain_percent: float | None = None
    baseline_gflops: float | None = None

    @property
    def label(self) -> str:
        """As in `Pair.labels`: `ViT-B/16`, `E(ViT-B/16)`."""
        plain = f"{self.family}-{self.size}"
        return plain if self.version == "X" else f"{self.version}({plain})"


@cache
def published() -> tuple[Published, ...]:
    """Every network that the paper gives figures for, in its order: X and E(X) of each size, then H(X)."""
    found = []
    for row in _rows("paper.csv"):
        family, size = _FAMILIES[row["family"]], row["size"]
        baseline = float(row["baseline_gflops"])
        found.append(Published(family, "X", size, baseline, _optional(row["baseline_top1"])))
        top1, gain = _optional(row["equivariant_top1"]), float(row["throughput_gain_percent"])
        found.append(Published(family, "E", size, float(row["equivariant_gflops"]), top1, gain, baseline))
    for row in _rows("paper-hybrids.csv"):
        family, gflops, top1 = (
            _FAMILIES[row["family"]],
            float(row["hybrid_gflops"]),
            float(row["hybrid_top1"]),
        )
        found.append(Published(family, "H", row["size"], gflops, top1))
    return tuple(found)


def _rows(name: str) -> list[dict[str, str]]:
    text = (files("flopbench") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _optional(value: str) -> float | None:
    return float(value) if value else None


def family_of(label: str) -> str | None:
    """The family of a network's label (`E(ViT-B/16)` → `ViT`), None for a network that is not the paper's."""
    read = _LABEL.fullmatch(label)
    return read and read["family"]


def version_of(label: str) -> str:
    """`E` of `E(ViT-B/16)`; `X` of a baseline, and of what is not the paper's."""
    read = _LABEL.fullmatch(label)
    return (read and read["version"]) or "X"


def size_of(label: str) -> str:
    """`B/16` of `E(ViT-B/16)`; nothing of what is not the paper's."""
    read = _LABEL.fullmatch(label)
    return read["size"] if read else ""
