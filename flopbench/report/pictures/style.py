"""How the pictures look: colours that the colour-blind tell apart, and markers that do without colour."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, Color Universal Design (2008), without its yellow, which is too pale for lines.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#AA4499",
    "#56B4E9",
)
INK, MUTED, GRID, PUBLISHED = "#1f2328", "#59636e", "#d8dee4", "#8c959f"


@dataclass(frozen=True)
class Look:
    """How a series is drawn; any two differ in marker and dashes too, not only in colour."""

    color: str
    marker: str
    dashes: Any = "solid"
    hatch: str = ""


LOOKS = (
    Look(BLUE, "o", "solid", ""),
    Look(VERMILION, "s", (0, (5, 1.5)), "///"),
    Look(GREEN, "^", (0, (1, 1)), "..."),
    Look(PURPLE, "D", (0, (5, 1.5, 1, 1.5)), "xxx"),
    Look(ORANGE, "v", (0, (3, 1)), "\\\\\\"),
    Look(SKY, "P", (0, (7, 1, 1, 1, 1, 1)), "++"),
)
VERSION_LOOKS = {
    "X": Look(INK, "o", "solid", ""),
    "E": LOOKS[1],
    "H": LOOKS[0],
    "I": LOOKS[3],
}
PASS_LOOKS = {"forward": LOOKS[0], "backward": LOOKS[1], "train": LOOKS[2]}


def look(index: int) -> Look:
    """The look of the n-th series."""
    return LOOKS[index % len(LOOKS)]


_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.visible": False,
    "text.color": INK,
    "text.parse_math": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 3.2,
    "errorbar.capsize": 2.5,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "svg.hashsalt": "flopbench",
    "svg.fonttype": "path",
}


@contextmanager
def style() -> Iterator[None]:
    """The settings under which figures are made and saved."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """A figure of `width` × `height` inches, laid out so that nothing is cut off."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def panels(count: int, *, columns: int = 3, size: tuple[float, float] = (3.0, 2.4), **share: Any) -> Any:
    """A figure with `count` panels in a grid: (figure, axes in reading order)."""
    columns = min(columns, count)
    rows = -(-count // columns)
    width = max(size[0] * columns, 5.6 if columns == 1 else 0)
    figure = new_figure(width, size[1] * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False, **share).flat
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, list(axes[:count])


def save(figure: "Figure") -> tuple[bytes, str]:
    """(PNG, SVG) of a figure: the same figure gives the same bytes."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib ends path data with blanks; committed files should have none.
    return png.getvalue(), re.sub(r"[ \t]+$", "", svg.getvalue().decode(), flags=re.MULTILINE)


def batch_axis(axis: "Axes", batches: Sequence[int]) -> None:
    """A logarithmic axis of batch sizes with a tick at each one measured."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axis.set_xscale("log", base=2)
    low, high = min(batches), max(batches)
    axis.set_xlim(low / 1.6, high * 1.6)
    axis.xaxis.set_major_locator(FixedLocator(batches))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(batches, [str(batch) for batch in batches])


def log_axis(axis: Any, low: float, high: float) -> None:
    """Ticks at 1, 2, 5 times the powers of ten, in plain numbers, on `axes.xaxis` or `axes.yaxis`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    steps = (1.0,) if high / low > 300 else (1.0, 3.0) if high / low > 40 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace(",", "\u202f")))


@dataclass(frozen=True)
class Label:
    """A text beside the point (x, y) of the data."""

    x: float
    y: float
    text: str
    color: str
    bold: bool = False


def place_labels(axis: "Axes", labels: Sequence[Label], *, dx: float = 7.0, size: float = 8.0) -> None:
    """Write labels to the right of their points, moved up or down where they would cover one another.

    Call it last: it settles the figure's layout, and labels depend on where the points are.
    """
    figure: Any = axis.figure
    figure.draw_without_rendering()
    points = 72.0 / figure.dpi
    placed: list[tuple[float, float, float, float]] = []
    limits = axis.get_window_extent()
    for label in sorted(labels, key=lambda label: (-label.y, label.x)):
        x, y = (value * points for value in axis.transData.transform((label.x, label.y)))
        width, height = 0.62 * size * len(label.text) + 4, size * 1.25
        left = x + dx
        if left + width > limits.x1 * points and x - dx - width > limits.x0 * points:
            left = x - dx - width
        bottom = _free_spot(left, y - height / 2, width, height, placed)
        placed.append((left, bottom, width, height))
        axis.annotate(
            label.text,
            (label.x, label.y),
            xytext=(left - x, bottom + height / 2 - y),
            textcoords="offset points",
            va="center",
            color=label.color,
            fontsize=size,
            fontweight="bold" if label.bold else "normal",
            annotation_clip=False,
        )


def _free_spot(
    left: float,
    bottom: float,
    width: float,
    height: float,
    taken: Sequence[tuple[float, float, float, float]],
) -> float:
    """The nearest height at which a box covers none of those already placed."""
    for shift in (sign * step * height / 2 for step in range(24) for sign in (1, -1)):
        box = bottom + shift
        if not any(
            left < x + w and x < left + width and box < y + h and y < box + height for x, y, w, h in taken
        ):
            return box
    return bottom
