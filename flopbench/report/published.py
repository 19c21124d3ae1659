"""What papers print of their networks: `data/published.csv`, from the sources in `data/sources.toml`."""

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from flopbench.report.labels import read

_DATA = files("flopbench") / "data"


@dataclass(frozen=True)
class Source:
    """Where figures are from.

    Attributes:
        title: of the paper.
        where: its authors, and where it is to be found.
        read: how far the figures are to be trusted.
        throughput: how it was measured; nothing where the source gives none.
    """

    title: str
    where: str
    read: str
    throughput: str = ""


@dataclass(frozen=True)
class Published:
    """One network as one source has it.

    Attributes:
        label: as in `Pair.labels`: `ViT-B/16`, `E(ViT-B/16)`.
        source: where the figures are from.
        printed: the figures as they are printed, by their names in `data/README.md`.
    """

    label: str
    source: Source
    printed: Mapping[str, str]

    def figure(self, name: str) -> float | None:
        """A figure as a number; None where the source has none."""
        return float(self.printed[name]) if name in self.printed else None

    @property
    def gflops(self) -> float | None:
        """Of one image, as the source counts them."""
        return self.figure("gflops")

    @property
    def top1(self) -> float | None:
        """ImageNet-1K accuracy in per cent, trained with labels."""
        return self.figure("top1")

    @property
    def gain_percent(self) -> float | None:
        """The throughput gain over the plain network of the same size."""
        return self.figure("throughput_gain_percent")

    @property
    def baseline(self) -> "Published | None":
        """The plain network of the same size, from the same source."""
        own = read(self.label)
        same = (other for other in published() if other.source == self.source)
        return next((other for other in same if own and other.label == own.network), None)


@cache
def sources() -> dict[str, Source]:
    """The sources by their keys in the files, in their order."""
    tables = tomllib.loads((_DATA / "sources.toml").read_text(encoding="utf-8"))
    return {key: Source(**table) for key, table in tables.items()}


@cache
def published() -> tuple[Published, ...]:
    """Every network of every source, in the order of the file. One that several sources have comes again."""
    figures: dict[tuple[str, str], dict[str, str]] = {}
    for row in csv.DictReader((_DATA / "published.csv").read_text(encoding="utf-8").splitlines()):
        figures.setdefault((row["source"], row["network"]), {})[row["figure"]] = row["value"]
    return tuple(Published(label, sources()[source], own) for (source, label), own in figures.items())


@cache
def with_accuracy() -> tuple[Published, ...]:
    """Those whose accuracy and FLOPs are known, each network once: as its first source has them."""
    found: dict[str, Published] = {}
    for network in published():
        if network.top1 is not None and network.gflops is not None:
            found.setdefault(network.label, network)
    return tuple(found.values())
