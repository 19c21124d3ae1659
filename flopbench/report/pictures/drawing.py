"""From a drawn figure to the files of a picture."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from flopbench.report.pictures.style import save

if TYPE_CHECKING:
    from flopbench.report.pictures.figure import Figure


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
    """A drawing, rendered; `phone` is the SVG of the same drawing made for narrow screens."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: str
    phone: str = ""

    @property
    def inline(self) -> str:
        """The SVG as part of a page: no prologue, metadata or style, and ids that no other picture has."""
        return _inline(self.svg, self.name, "wide" if self.phone else "")

    @property
    def inline_phone(self) -> str:
        """The same of the SVG for narrow screens; empty where there is none."""
        return self.phone and _inline(self.phone, f"{self.name}-phone", "narrow")


def _inline(svg: str, name: str, kind: str) -> str:
    body = svg[svg.index("<svg") :]
    for element in ("metadata", "style"):
        body = re.sub(rf"<{element}\b.*?</{element}>", "", body, flags=re.DOTALL)
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', body)[:2]
    # Above the drawn size on a page, and never shrunk past reading: it scrolls instead.
    size = f'width="{float(width) * 1.7:.0f}" style="min-width: {float(width) * 0.95:.0f}px"'
    body = body.replace(f'width="{width}pt" height="{height}pt"', f'class="{kind}" {size}', 1)
    # The page has it, and an id is short, for everything drawn names one.
    body = body.replace("font-family: 'DejaVu Sans', sans-serif; ", "")
    own = f"p{crc32(name.encode()):x}"
    body = re.sub(r'\bid="', f'id="{own}-', body)
    return re.sub(r'(href="|url\()#', rf"\1#{own}-", body)


def finish(drawing: Drawing, phone: Drawing | None = None) -> Picture:
    """Render a drawing, and the same one drawn narrow if there is one."""
    png, svg = save(drawing.figure)
    narrow = save(phone.figure)[1] if phone else ""
    return Picture(drawing.name, drawing.title, drawing.caption, drawing.alt, png, svg, narrow)
