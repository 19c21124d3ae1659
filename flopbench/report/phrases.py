"""Parts of sentences that several findings have."""

from flopbench.report import text
from flopbench.report.cells import Row
from flopbench.report.labels import version_of


def pass_words(pass_: str) -> str:
    """A pass as the end of a sentence has it."""
    return {"forward": "forward", "backward": "backward", "train": "in a training step"}[pass_]


def shown_interval(row: Row) -> tuple[str, str]:
    """`1.44` and `1.43 to 1.46`: the speed-up and its interval."""
    shown = text.interval(row["speedup"], row["speedup_low"], row["speedup_high"]).replace("\u00a0", " ")
    estimate, _, bounds = shown.partition(" [")
    return estimate, bounds.rstrip("]").replace(", ", " to ")


def is_rival(row: Row) -> bool:
    """Whether the baseline is averaged over a group: test-time augmentation."""
    return version_of(row["baseline_label"]).averaged


def baseline_of(row: Row) -> str:
    """What a candidate is compared with, and what test-time augmentation has in common with it."""
    baseline = text.printable(row["baseline_label"])
    version = version_of(row["candidate_label"])
    if is_rival(row) and version.invariant and version.about == version_of(row["baseline_label"]).about:
        return f"{baseline}, which has the same symmetry by {version.about.divisor} passes,"
    return baseline
