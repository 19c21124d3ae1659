"""What a distribution's README lacks: the links that only a clone of the repository can follow."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = r"\((?!https?://|#)[^)]*\)"


def without_relative_links(markdown: str) -> str:
    """Markdown whose relative links are their words, and whose relative pictures are gone."""
    kept = re.sub(rf"!\[[^\]]*\]{_RELATIVE}\n*", "", markdown)
    return re.sub(rf"\[([^\]]*)\]{_RELATIVE}", r"\1", kept)


class ReadmeHook(MetadataHookInterface):
    """Fills in the project's `readme`, which package indexes show away from the repository."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the project's table."""
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": without_relative_links(readme)}
