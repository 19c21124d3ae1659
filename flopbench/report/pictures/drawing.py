"""From a drawn figure to the files of a picture."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flopbench.report.pictures.style import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure with its words. `name` is the stem of its files; `alt` says what is seen, in one sentence."""

    name: str
    title: str
    caption: str
    alt: str
    figure: "Figure"


@dataclass(frozen=True)
class Picture:
    """A drawing, rendered."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: str

    @property
    def inline(self) -> str:
        """The SVG as part of a page: no prologue or metadata, and ids that no other picture has."""
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
        body = re.sub(
            r'<svg[^>]*?width="([\d.]+)pt" height="[\d.]+pt"', _sized, body, count=1, flags=re.DOTALL
        )
        body = re.sub(r'\bid="', f'id="{self.name}-', body)
        return re.sub(r'(href="|url\()#', rf"\1#{self.name}-", body)


def _sized(start: re.Match[str]) -> str:
    """Its width in a page: above the drawn one; on a phone scrolled rather than shrunk past reading."""
    points = float(start[1])
    return f'<svg width="{points * 1.7:.0f}" style="min-width: {points * 0.8:.0f}px"'


def finish(drawing: Drawing) -> Picture:
    """Render a drawing."""
    png, svg = save(drawing.figure)
    return Picture(drawing.name, drawing.title, drawing.caption, drawing.alt, png, svg)
