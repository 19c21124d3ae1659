"""Lines of cells that differ in one thing alone, in the order of its values: widths, resolutions."""

import math
from dataclasses import dataclass

from flopbench.cells import AXES
from flopbench.report import text
from flopbench.report.cells import (
    SEPARATOR,
    Row,
    Rows,
    about,
    baseline_is_told,
    by,
    label_of,
    pair_label_of,
    verdict,
    which,
)
from flopbench.report.labels import version_of
from flopbench.report.phrases import baseline_of, pass_words, shown_interval
from flopbench.symmetries.registry import BASELINE


@dataclass(frozen=True)
class Along:
    """What the cells of a line differ in.

    Attributes:
        axis: its name (`flopbench.cells.AXES`).
        noun: what people call it.
        unit: of its values.
    """

    axis: str
    noun: str
    unit: str

    def place(self, row: Row) -> float:
        """Where a row stands; of images, at the side of a square of as many pixels."""
        sides = self.value(row).split("×")
        return math.prod(map(int, sides)) ** (1 / len(sides))

    def value(self, row: Row) -> str:
        """`768`, `512×512`."""
        return str(row[self.axis])

    def say(self, row: Row) -> str:
        """`width 768`, `512×512 pixels`."""
        return AXES[self.axis].say(row[self.axis], usual=True)

    def name(self, row: Row) -> str:
        """Of a row's line: its pair, and what else this differs in from others."""
        if not AXES[self.axis].in_label:
            return pair_label_of(row, but=self.axis)
        blocks = [f"depth {row['depth']}"] if row["depth"] else []
        return SEPARATOR.join([row["pair"], *blocks, *which(row)])

    def lines(self, cells: Rows) -> list[list[Row]]:
        """Cells of one setting, pair, pass and batch size that differ in this alone, from the least on."""
        others = [axis.name for axis in AXES.values() if axis.about != "setting" and axis.name != self.axis]
        groups = by([row for row in cells if row[self.axis]], "pair", *others).values()
        return [sorted(group, key=self.place) for group in groups if len(group) > 1]


WIDTH = Along("width", "width", "channels")
RESOLUTION = Along("image_size", "resolution", "pixels")


def not_halved(row: Row) -> float | None:
    """The share of the baseline's MACs that the candidate has whole, where the others are halved.

    It follows from both counts: of M, of which the share x is whole, x·M + (1 − x)·M / 2 is left. None where
    it does not: of groups of more than two elements, and unless all blocks of one network and none of the
    other have the symmetry.
    """
    version = version_of(row["candidate_label"])
    halves = version.about.divisor == 2 and version.schedule == "equivariant"
    if not halves or version_of(row["baseline_label"]) != BASELINE or row["macs_ratio"] is None:
        return None
    return max(0.0, 2 / row["macs_ratio"] - 1)


def where_it_pays(cells: Rows) -> list[str]:
    """From which width on, for each pair, depth, pass and batch size that has several widths."""
    said = []
    several = len({row["pair"] for row in cells}) > 1
    for line in WIDTH.lines(cells):
        one = line[0]
        blocks = f", depth {one['depth']}" if one["depth"] else ""
        where = f"{pass_words(one['pass'])} at batch {one['batch_size']}{blocks}"
        what = text.printable(one["pair"]) if several else "equivariance"
        said.append(f"{where[0].upper()}{where[1:]}, {what} pays {_crossover(line, WIDTH)}.")
    return said


def over_resolutions(cells: Rows) -> list[str]:
    """Where each pair that has several resolutions pays, in each pass and at each batch size; and how much of
    the baseline's work is not halved.
    """
    said, shares = [], {}
    for line in RESOLUTION.lines(cells):
        ends = [line[0], line[-1]]
        where = f"{pass_words(ends[0]['pass'])} at batch {ends[0]['batch_size']}"
        who = label_of(ends[0], "candidate", but=RESOLUTION.axis)
        if not baseline_is_told(ends[0]):
            who += f", against {baseline_of(ends[0]).rstrip(',')},"
        figures = [
            f"{text.times(row['speedup'])} (95 % interval {shown_interval(row)[1]}"
            + (f"; the MACs promise {about(row, text.times(row['macs_ratio']))}" if row["macs_ratio"] else "")
            + f") at {RESOLUTION.say(row)}"
            for row in ends
        ]
        said.append(
            f"{where[0].upper()}{where[1:]}, {who} pays "
            f"{_crossover(line, RESOLUTION)}: {' and '.join(figures)}.".replace("\u00a0", " ")
        )
        shares |= dict.fromkeys(_shares_not_halved(line))
    return [*said, *shares]


def _shares_not_halved(line: Rows) -> list[str]:
    """How much of the baseline's work the candidate has whole, where that grows with the resolution."""
    shares = [(row, share) for row in line if (share := not_halved(row)) is not None]
    if len(shares) < 2 or shares[-1][1] < shares[0][1] + 0.01:
        return []
    # What grows faster than the pixels do is attention.
    (first, least), (last, most) = shares[0], shares[-1]
    half = next((f"; from {RESOLUTION.say(row)} on more than half" for row, x in shares if x > 0.5), "")
    whose = label_of(first, "baseline", but=RESOLUTION.axis)
    sentence = (
        f"Of the MACs of {whose} {text.percent(least)} are not halved, above all those of attention, at "
        f"{RESOLUTION.say(first)}, and {text.percent(most)} at {RESOLUTION.say(last)}{half}."
    )
    return [sentence.replace("\u00a0", " ")]


def _crossover(line: Rows, along: Along) -> str:
    """Where every interval lies above 1: from a place of the line on, up to one, or at some."""
    paying = [verdict(row) == "faster" for row in line]
    count = sum(paying)
    named = [along.say(row) for row in line]
    if all(paying):
        return f"at every {along.noun} measured, from {along.value(line[0])} to {along.value(line[-1])}"
    if all(paying[-count:]) and count:
        return f"from {named[-count]} on"
    if all(paying[:count]) and count:
        return f"up to {named[count - 1]}"
    if count:
        return f"at {text.joined([name for name, pays in zip(named, paying, strict=True) if pays])} alone"
    last = "costs time" if verdict(line[-1]) == "slower" else "is neither faster nor slower for certain"
    return f"at no {along.noun} measured; at the largest, {along.value(line[-1])}, it {last}"
