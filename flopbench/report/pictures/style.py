"""How the pictures look: colours that the colour-blind tell apart, and markers that do without colour."""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flopbench.report import text
from flopbench.report.cells import SEPARATOR, Rows, counted_in_full
from flopbench.symmetries.registry import BASELINE, SCHEDULES, Version, versions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as AnyFigure

    from flopbench.report.pictures.figure import Figure

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

# What becomes of the colours where the reader prefers the dark; those that are not here stand out on both.
_IN_THE_DARK = {
    "#ffffff": "#12161c",
    INK: "#e6edf3",
    MUTED: "#9ba6b2",
    GRID: "#30363d",
    BLUE: "#58a6ff",
    PURPLE: "#e07ecb",
}


def dark_css() -> str:
    """Rules that recolour an SVG of ours on a dark screen, inside the file or on a page that holds it.

    They find colours where matplotlib writes them, so viewers without such rules still have the light ones.
    """
    rules = (
        f'[style*="{part}: {light.lower()}"] {{ {part}: {dark} !important; }}'
        for light, dark in _IN_THE_DARK.items()
        for part in ("fill", "stroke")
    )
    return "@media screen and (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}\n"


@dataclass(frozen=True)
class Look:
    """How a series is drawn; any two differ in marker and dashes too, not only in colour."""

    color: str
    marker: str = ""
    dashes: Any = "solid"
    hatch: str = ""

    @property
    def line(self) -> dict[str, Any]:
        """What `plot` and `errorbar` take."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.dashes}

    @property
    def bar(self) -> dict[str, Any]:
        """What `barh` and `Patch` take."""
        return {"facecolor": self.color, "hatch": self.hatch, "edgecolor": "white", "linewidth": 0}


LOOKS = (
    Look(BLUE, "o", "solid", ""),
    Look(VERMILION, "s", (0, (5, 1.5)), "///"),
    Look(GREEN, "^", (0, (1, 1)), "..."),
    Look(PURPLE, "D", (0, (5, 1.5, 1, 1.5)), "xxx"),
    Look(ORANGE, "v", (0, (3, 1)), "\\\\\\"),
    Look(SKY, "P", (0, (7, 1, 1, 1, 1, 1)), "++"),
)
PASS_LOOKS = {"forward": LOOKS[0], "backward": LOOKS[1], "train": LOOKS[2]}


def look(index: int) -> Look:
    """The look of the n-th series."""
    return LOOKS[index % len(LOOKS)]


# A symmetry has a colour, and a marker per schedule; a schedule has its dashes.
_COLORS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, SKY)
_MARKERS = ("s^D8", "pvXH", "*<P+", "h>dx")
_DASHES = ((0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (7, 1, 1, 1, 1, 1)))


def version_look(version: Version) -> Look:
    """The look of a version of networks, from which both its symmetry and its schedule can be told."""
    if version == BASELINE:
        return Look(INK, "o", "solid", "")
    known = [about for about in dict.fromkeys(own.about for own in versions()) if about != BASELINE.about]
    number, schedule = known.index(version.about), SCHEDULES.index(version.schedule)
    markers = _MARKERS[number % len(_MARKERS)]
    return Look(_COLORS[number % len(_COLORS)], markers[schedule], _DASHES[schedule])


_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
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
    # Text that can be searched and read aloud; DejaVu is wide, so other fonts fit where it does.
    "svg.fonttype": "none",
}


# Inches: the text of a figure so wide can be read on a phone without scrolling.
_PHONE_WIDTH = 3.9
_for_phones = ContextVar("for_phones", default=False)


@contextmanager
def style(*, phone: bool = False) -> Iterator[None]:
    """The settings under which figures are made and saved; for `phone`, narrow and in one column."""
    import matplotlib

    token = _for_phones.set(phone)
    try:
        with matplotlib.rc_context(_RC), warnings.catch_warnings():
            # Names may hold letters that the font lacks: an SVG's reader has others, a PNG shows a box.
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            yield
    finally:
        _for_phones.reset(token)


def new_figure(width: float, height: float) -> "Figure":
    """A figure of `width` × `height` inches, or as wide as a phone, laid out so that nothing is cut off."""
    from flopbench.report.pictures.figure import Figure

    width = min(width, _PHONE_WIDTH) if _for_phones.get() else width
    return Figure(figsize=(width, height), layout="constrained", dpi=160)


def wrapped(words: str, letters: int = 40) -> str:
    """Words in lines of so many letters where the figure is for a phone: titles, names of series and rows."""
    if not _for_phones.get():
        return words
    return "\n".join(part for line in words.split("\n") for part in textwrap.wrap(line, letters))


def name_of(label: str, letters: int = 40) -> str:
    """A network's label as a picture has room for it; below it what it does not say."""
    name, *rest = text.printable(label).split(SEPARATOR, 1)
    return wrapped("\n".join([text.shortened(name, 40), *rest]), letters)


def caution(rows: Rows) -> str:
    """What a caption says of figures that rest on MACs, if operators were left out of these."""
    return "" if all(map(counted_in_full, rows)) else " Operators were left out of the MACs (≈)."


def panels(count: int, *, columns: int = 3, size: tuple[float, float] = (3.0, 2.4), **share: Any) -> Any:
    """A figure with `count` panels in a grid: (figure, axes in reading order)."""
    columns = 1 if _for_phones.get() else min(columns, count)
    rows = -(-count // columns)
    width = max(size[0] * columns, 5.6 if columns == 1 else 0)
    figure = new_figure(width, size[1] * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False, **share).flat
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, list(axes[:count])


def label_grid(axes: Sequence["Axes"], vertical: str | Sequence[str], horizontal: str = "") -> None:
    """Name the axes of the panels of a grid at its edges: at the left, and where no panel is below.

    Where the vertical axes of panels differ, there is a name per panel, which stands where it is not that of
    the panel at its left. Where the horizontal ones do, they are named elsewhere.
    """
    names = [vertical] * len(axes) if isinstance(vertical, str) else vertical
    for place, axis in enumerate(axes):
        own: Any = axis.get_subplotspec()
        if own.is_first_col() or names[place] != names[place - 1]:
            axis.set_ylabel(names[place])
        if horizontal and place + own.get_gridspec().ncols >= len(axes):
            axis.set_xlabel(horizontal)


def columns(most: int) -> int:
    """How many columns a legend may have."""
    return min(most, 2) if _for_phones.get() else most


def told(figures: Iterable[str]) -> str:
    """The figures of a picture as the end of its alternative text."""
    return text.printable("; ".join(figures)) + "."


def promise(axis: "Axes", ratio: float, row: int, *, labelled: bool) -> None:
    """What the MACs promise, a dashed mark across a row of a picture of speed-ups; one is in the legend."""
    axis.plot(
        [ratio, ratio],
        [row - 0.4, row + 0.4],
        color=INK,
        linestyle=(0, (3, 2)),
        linewidth=1.2,
        label="MACs ratio" if labelled else None,
    )


def named_rows(axis: "Axes", names: Sequence[str]) -> None:
    """A row a name, the first on top."""
    axis.set_yticks(range(len(names)), [name_of(name, 16) for name in names])
    axis.set_ylim(len(names) - 0.45, -0.55)
    axis.grid(False, axis="y")


def whiskers(rows: Rows, show: Callable[[float], float] = lambda speedup: speedup) -> list[list[float]]:
    """How far the 95 % interval of each speed-up reaches to either side, in the unit that `show` gives."""
    low = [show(row["speedup"]) - show(row["speedup_low"]) for row in rows]
    return [low, [show(row["speedup_high"]) - show(row["speedup"]) for row in rows]]


def settle(figure: Any) -> None:
    """Lay a figure out once and for all; drawing it again does not."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        # "none" would leave a placeholder in its place, for which every file is drawn twice.
        figure.set_layout_engine(None)


def save(figure: "AnyFigure") -> tuple[bytes, str]:
    """(PNG, SVG) of a figure: the same figure gives the same bytes."""
    settle(figure)
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return png.getvalue(), _plain(svg.getvalue().decode()).replace("</style>", dark_css() + "</style>", 1)


def _plain(svg: str) -> str:
    """An SVG without what nobody sees: pages hold several of them.

    That is more than hundredths of a point, names of groups and those around marks and words, rotations by
    nothing, indentation, and the blanks with which matplotlib ends lines.
    """

    def shorter(tag: re.Match[str]) -> str:
        short = re.sub(r"(\.\d\d)\d+", r"\1", tag.group())
        short = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", short)
        return re.sub(r'^<g id="[^"]*"', "<g", short)

    short = re.sub(r"^[ \t]+|[ \t]+$", "", re.sub(r"<[^!?][^>]*>", shorter, svg), flags=re.MULTILINE)
    return re.sub(r"<g>\n((?:<(?:use|path|text)\b[^<]*(?:/>|</text>)\n)*)</g>\n", r"\1", short)


def batch_axis(
    axis: "Axes", batches: Sequence[float], reach: Sequence[float] = (), names: Sequence[str] = ()
) -> None:
    """A logarithmic axis of batch sizes, or of what else doubles, with a tick at each of `batches`.

    `reach` has to be on it too; `names` stand at the ticks, if not the values.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    axis.set_xscale("log", base=2)
    low, high = min([*batches, *reach]), max([*batches, *reach])
    axis.set_xlim(low / 1.6, high * 1.6)
    axis.xaxis.set_major_locator(FixedLocator(batches))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(batches, names or [str(batch) for batch in batches])


def log_axis(axis: Any, low: float, high: float) -> None:
    """Ticks at 1, 2, 5 times the powers of ten, in plain numbers, on `axes.xaxis` or `axes.yaxis`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    span = high / low
    steps = (1.0,) if span > 300 else (1.0, 3.0) if span > 40 else (1.0, 2.0, 5.0)
    if span < 4:
        steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
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


# Where a label may stand, seen from its point: (horizontal, vertical) in units of its own half size.
_SPOTS = (
    (1, 0),
    (0, 1),
    (0, -1),
    (1, 1),
    (1, -1),
    (-1, 1),
    (-1, -1),
    (-1, 0),
    (1, 2),
    (1, -2),
    (-1, 2),
    (-1, -2),
)


def place_labels(axis: "Axes", labels: Sequence[Label], *, size: float = 8.0) -> None:
    """Write labels beside their points where they cover the least: other labels, markers, lines.

    Call it last: it settles the figure's layout, and the spots depend on where everything is.
    """
    import numpy as np
    from matplotlib.path import Path
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    figure: Any = axis.figure
    settle(figure)
    pixels = figure.dpi / 72.0
    lines = [Path(line.get_transform().transform(line.get_xydata())) for line in axis.lines]
    frame = axis.get_window_extent()
    placed: list[Any] = []

    def cost(box: Any, order: int) -> float:
        outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
        shared = [Bbox.intersection(box, other) for other in placed]
        covered = sum(0.1 + part.width * part.height / (box.width * box.height) for part in shared if part)
        markers = sum(int(box.contains(x, y)) for line in lines for x, y in np.asarray(line.vertices))
        crossed = sum(line.intersects_bbox(box, filled=False) for line in lines)
        return 40 * outside + 20 * covered + 6 * markers + 2 * crossed + 0.3 * order

    for label in sorted(labels, key=lambda label: (not label.bold, label.x, label.y)):
        x, y = axis.transData.transform((label.x, label.y))
        half_width = (0.31 + 0.03 * label.bold) * size * len(label.text) * pixels
        half_height = 0.6 * size * pixels
        boxes = []
        for across, up in _SPOTS:
            center_x = x + across * (half_width + 6 * pixels)
            center_y = y + up * (half_height + (4 if across == 0 else 1) * pixels)
            boxes.append(
                Bbox.from_bounds(
                    center_x - half_width, center_y - half_height, 2 * half_width, 2 * half_height
                )
            )
        box = min(boxes, key=lambda box: cost(box, boxes.index(box)))
        placed.append(box)
        axis.annotate(
            label.text,
            (label.x, label.y),
            xytext=((box.x0 + box.x1) / 2 / pixels - x / pixels, (box.y0 + box.y1) / 2 / pixels - y / pixels),
            textcoords="offset points",
            ha="center",
            va="center",
            color=label.color,
            fontsize=size,
            fontweight="bold" if label.bold else "normal",
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
