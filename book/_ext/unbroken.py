"""Sphinx extension: 6.8e-03 and CDL-C stay on one line; browsers would break them after their hyphens."""

import re

from docutils import nodes
from sphinx.application import Sphinx

WHOLE = re.compile(r"(\d(?:\.\d+)?e[-+]\d+|\b[A-Z]+-[A-Z]\b)")


def wrap(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give each of them in prose and tables, glued or not, an element of its own, which style.css keeps whole."""
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)):
            continue
        parts = WHOLE.split(text)
        if len(parts) > 1:  # the odd ones are matches
            text.parent.replace(
                text,
                [
                    nodes.inline("", part, classes=["unbroken"]) if i % 2 else nodes.Text(part)
                    for i, part in enumerate(parts)
                    if part
                ],
            )


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", wrap)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
