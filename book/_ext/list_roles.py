"""Sphinx extension: entries of lists of citations are list items, as the list that docutils puts around them expects.

The role doc-biblioentry that docutils gives them is deprecated, and screen readers then find an empty list.
"""

from sphinx.application import Sphinx


def correct(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Give the entries of a page the role that fits."""
    for old in ("doc-biblioentry", "doc-endnote"):
        context["body"] = context.get("body", "").replace(f'role="{old}"', 'role="listitem"')


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", correct)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
