"""Sphinx extension: under each figure and table of a notebook one line, with its id, files, command and BibTeX.

A cell that has a name in its metadata is found in the registry that lies beside the pages. `studies.cite` has made that
from notebooks and records.
"""

import html
import json
import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

REGISTRY = Path("book", "_extra", "figures", "registry.json")

LINE = re.compile(r'<div class="origin"><a href="#([\w-]+)"')
# With the name of each, empty where it has none.
FIGURE = re.compile(r'<figure\b(?:[^>]*?\bid="([^"]*)")?')


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
    entries = {entry["id"]: entry for entry in json.loads(path.read_text("utf-8"))["entries"]}
    docname = app.env.docname
    up = os.path.relpath(".", Path(docname).parent).replace(os.sep, "/") + "/"
    # Pages that are no notebooks have no cells: there a figure, or a container, has the id itself.
    for node in list(doctree.findall(lambda node: isinstance(node, (nodes.figure, nodes.container)))):
        for entry in (entries[key] for key in node["ids"] if key in entries and entries[key]["page"] == docname):
            if not entry["cell"]:
                app.env.note_dependency(str(path))
                node.parent.insert(node.parent.index(node) + 1, nodes.raw("", line(entry, up), format="html"))
    for cell in list(doctree.findall(nodes.container)):
        key = name(cell) if cell.get("nb_element") == "cell_code" else None
        if key not in entries:
            continue
        app.env.note_dependency(str(path))
        entry, place = entries[key], cell.parent
        place.insert(place.index(cell) + 1, nodes.raw("", line(entry, up), format="html"))
        if entry["kind"] == "table":
            caption = nodes.paragraph("", "", *entry_caption(entry), classes=["table-caption"], ids=[key])
            shown = [part for part in cell.children if part.get("nb_element") == "cell_code_output"]
            # Between the code and what it shows.
            (shown[0] if shown else cell).insert(0, caption)
            refer(app, key, entry["caption"])


def refer(app: Sphinx, key: str, caption: str) -> None:
    """Let the role ref of any page lead to a table; figures have labels of their own."""
    domain, place = app.env.get_domain("std"), (app.env.docname, key)
    domain.labels[key], domain.anonlabels[key] = (*place, caption), place


def entry_caption(entry: dict) -> list[nodes.Node]:
    """Return the caption of a table; of Markdown it may have code."""
    parts = entry["caption"].split("`")
    return [nodes.literal("", part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts) if part]


def disagreements(entries: list[dict], folder: Path) -> list[str]:
    """Return in what registry and built pages disagree: missing anchors, lines and files, figures without an entry.

    Args:
        entries: From the registry.
        folder: Of the built pages.
    """
    found, shown = [], {}
    known = {entry["id"]: entry["page"] for entry in entries}
    for path in sorted([*folder.glob("notebooks/*.html"), *folder.glob("book/*.html")]):
        text, page = path.read_text("utf-8"), path.relative_to(folder).with_suffix("").as_posix()
        lines = LINE.findall(text)
        shown |= dict.fromkeys(lines, page)
        found += [f"{key}: no anchor on {page}" for key in lines if f'id="{key}"' not in text]
        for key in dict.fromkeys([*lines, *FIGURE.findall(text)]):
            if key not in known:
                found.append(f"{key or 'a figure without a name'}: on the page {page}, not in the registry")
    found += [
        f"{key}: in the registry for {known[key]}, on no such page" for key in known if shown.get(key) != known[key]
    ]
    files = [file for entry in entries for file in entry["files"]]
    return found + [f"{file}: is not there" for file in files if not (folder / "figures" / file).is_file()]


def check(app: Sphinx, failure: Exception | None) -> None:
    """Fail unless registry and pages agree both ways."""
    path = Path(app.srcdir, REGISTRY)
    if failure is not None or app.builder.name != "html" or not path.is_file():
        return
    if found := disagreements(json.loads(path.read_text("utf-8"))["entries"], Path(app.outdir)):
        raise ExtensionError("registry and pages disagree: " + "; ".join(found))


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", add)
    app.connect("build-finished", check)
    app.add_css_file("origin.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
