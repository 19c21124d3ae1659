"""What people look at: terminal tables, pictures, Markdown and a self-contained page."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flopbench.report.render import ReportFiles, render_report
    from flopbench.report.tables import format_frame, summary_table

FORMATS = ("table", "json", "csv", "markdown")

__all__ = ["FORMATS", "ReportFiles", "format_frame", "render_report", "summary_table"]

_HOMES = {
    "ReportFiles": "render",
    "render_report": "render",
    "format_frame": "tables",
    "summary_table": "tables",
}


def __getattr__(name: str) -> Any:
    # Lazily, so that the command line can know the formats without pandas, matplotlib and Jinja2.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
