"""Sphinx extension: under each figure and table of a notebook one line, with its id, files, command and BibTeX.

A cell that has a name in its metadata is found in the registry that lies beside the pages. `studies.cite` has made that
from notebooks and records.
"""

import html
import json
import os
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

REGISTRY = Path("book", "_extra", "figures", "registry.json")


def name(cell: nodes.Element) -> str | None:
    """Return the id that the metadata of a cell give its figure or table."""
    metadata = cell.get("cell_metadata") or {}
    labels = metadata.get("mystnb", {}).get("figure") or metadata.get("table") or {}
    return labels.get("name")


def line(entry: dict, up: str) -> str:
    """Return the line of an entry, as HTML.

    Args:
        entry: From the registry.
        up: Relative address of the folder of the whole book.
    """
    key, command, bibtex = (html.escape(entry[field]) for field in ("id", "command", "bibtex"))
    files = " ".join(
        f'<a href="{up}figures/{html.escape(file)}" download>{file.rpartition(".")[2].upper()}</a>'
        for file in entry["files"]
    )
    return (
        f'<div class="origin"><a href="#{key}" title="Link to this {entry["kind"]}">{key}</a> {files} '
        f"<code>{command}</code> <details><summary>BibTeX</summary>"
        f'<div class="highlight"><pre>{bibtex}</pre></div></details></div>'
    )


def add(app: Sphinx, doctree: nodes.document) -> None:
    """Put the lines below the cells, and above a table its caption."""
    path = Path(app.srcdir, REGISTRY)
    if not path.is_file():
        return
    entries = {entry["id"]: entry for entry in json.loads(path.read_text("utf-8"))}
    docname = app.env.docname
    up = os.path.relpath(".", Path(docname).parent).replace(os.sep, "/") + "/"
    for cell in list(doctree.findall(nodes.container)):
        key = name(cell) if cell.get("nb_element") == "cell_code" else None
        if key not in entries:
            continue
        app.env.note_dependency(str(path))
        entry, place = entries[key], cell.parent
        place.insert(place.index(cell) + 1, nodes.raw("", line(entry, up), format="html"))
        if entry["kind"] == "table":
            caption = nodes.paragraph("", "", *entry_caption(entry), classes=["table-caption"], ids=[key])
            place.insert(place.index(cell), caption)


def entry_caption(entry: dict) -> list[nodes.Node]:
    """Return the caption of a table; of Markdown it may have code."""
    parts = entry["caption"].split("`")
    return [nodes.literal("", part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts) if part]


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", add)
    app.add_css_file("origin.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
