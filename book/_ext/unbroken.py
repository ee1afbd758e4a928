"""Sphinx extension: a number such as 6.8e-03 stays on one line; browsers would break it after its hyphen."""

import re

from docutils import nodes
from sphinx.application import Sphinx

NUMBER = re.compile(r"(\d(?:\.\d+)?e[-+]\d+)")


def wrap_numbers(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give each such number in prose and tables, glued or not, an element of its own, which style.css keeps whole."""
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)):
            continue
        parts = NUMBER.split(text)
        if len(parts) > 1:  # the odd ones are numbers
            text.parent.replace(
                text,
                [
                    nodes.inline("", part, classes=["number"]) if i % 2 else nodes.Text(part)
                    for i, part in enumerate(parts)
                    if part
                ],
            )


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", wrap_numbers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
