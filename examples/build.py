"""Make what is made of the examples: `python examples/build.py` (pip install -e '.[test]').

Each topic has one source, a script in jupytext's percent format. Of it come the notebook, run, and what the
pages of `docs/` show between markers: `<!-- topic: cell -->` and `<!-- end -->` hold the code of the cell of
that title and what it gave, `<!-- topic: cell result -->` that alone, `<!-- file: name -->` a file.
"""

import base64
import re
import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode, read, write

EXAMPLES = Path(__file__).parent
DOCS = EXAMPLES.parent / "docs"
TOPICS = ("own_pair", "layer", "regression_test", "pandas_frame", "machines", "dense")
_SHOWN = re.compile(r"<!-- (\w+): ([\w.]+)( result)? -->\n.*?<!-- end -->", flags=re.DOTALL)


def notebook_of(topic: str) -> NotebookNode:
    """The notebook of a topic's script, not run yet; the same at every call."""
    notebook = jupytext.read(EXAMPLES / f"{topic}.py", fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = str(number)
        cell.metadata = {"title": cell.metadata["title"]} if "title" in cell.metadata else {}
    return notebook


def run(notebook: NotebookNode) -> NotebookNode:
    """The notebook after it was run in the folder of the examples; an error in a cell is raised."""
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.metadata.pop("execution", None)
        cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _is_progress(output: NotebookNode) -> bool:
    return output.output_type == "display_data" and "image/png" not in output.data


def committed(topic: str) -> NotebookNode:
    """The notebook as it lies beside its script."""
    return read(EXAMPLES / f"{topic}.ipynb", as_version=4)


def documented(page: str, pictures: dict[str, bytes]) -> str:
    """A page whose marked parts show the committed notebooks; the pictures among them go into `pictures`."""
    return _SHOWN.sub(lambda match: _shown(match, pictures), page)


def _shown(match: re.Match[str], pictures: dict[str, bytes]) -> str:
    topic, title, result = match.groups()
    if topic == "file":
        text = (EXAMPLES / title).read_text(encoding="utf-8")
        return f"<!-- file: {title} -->\n\n```{title.rpartition('.')[2]}\n{text}```\n\n<!-- end -->"
    (cell,) = (cell for cell in committed(topic).cells if cell.metadata.get("title") == title)
    parts = [] if result else [f"```python\n{cell.source}\n```"]
    for output in cell.outputs:
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" in data:
            name = f"{topic}-{title}.png"
            pictures[name] = base64.b64decode(data["image/png"])
            parts.append(f"![What {topic}.py draws]({name})")
        else:
            lines = [line.rstrip() for line in data["text/plain"].strip("\n").splitlines()]
            parts.append("\n".join(["```text", *lines, "```"]))
    return "\n".join([f"<!-- {topic}: {title}{result or ''} -->", "", "\n\n".join(parts), "", "<!-- end -->"])


def main(topics: list[str]) -> None:
    """Make the notebooks of these topics, or of all, and renew the pages."""
    for topic in topics or TOPICS:
        write(run(notebook_of(topic)), EXAMPLES / f"{topic}.ipynb")
        print(f"{topic}.ipynb")
    pictures: dict[str, bytes] = {}
    for page in DOCS.glob("*.md"):
        page.write_text(documented(page.read_text(encoding="utf-8"), pictures), encoding="utf-8")
    for name, picture in pictures.items():
        (DOCS / name).write_bytes(picture)


if __name__ == "__main__":
    main(sys.argv[1:])
