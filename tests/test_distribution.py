"""What package indexes show of the project."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def hook(monkeypatch):
    """The build's hook; hatchling is there while building alone."""
    interface = ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", interface)
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import pypi_readme  # pyright: ignore[reportMissingImports]

    yield pypi_readme
    del sys.modules["pypi_readme"]


def test_the_readme_of_a_distribution_links_to_nothing_that_it_lacks(hook):
    metadata = {}
    hook.ReadmeHook.update(SimpleNamespace(root=str(ROOT)), metadata)
    shown = metadata["readme"]["text"]
    assert re.findall(r"\]\((?!https://|#)", shown) == []
    assert "](https://arxiv.org/abs/2502.05169)" in shown
    assert len(shown) > 0.8 * len((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("see [the\nreport](reports/a.md) now", "see the\nreport now"),
        ("[`suites/`](suites)", "`suites/`"),
        ("![alt](a.svg)\n\nnext", "next"),
        ("[paper](https://a.org/x) and [above](#words)", "[paper](https://a.org/x) and [above](#words)"),
    ],
)
def test_relative_links_become_their_words(hook, markdown, expected):
    assert hook.without_relative_links(markdown) == expected


def test_every_relative_link_of_the_readme_leads_somewhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", readme)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
