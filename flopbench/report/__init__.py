"""What people look at: terminal tables, pictures, Markdown and a self-contained page."""

FORMATS = ("table", "json", "csv", "markdown")
