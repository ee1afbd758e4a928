"""Sphinx extension: the directive ``interactive`` puts a figure with controls on a page, from `studies.interactive`.

The data stand in the page as JSON and are drawn by interactive.js, so that the page works from a file. Without scripts
a table says the same.
"""

import json
from html import escape

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from studies import interactive


class Interactive(Directive):
    """``{interactive} NAME``: the interactive figure of this name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        try:
            shown = interactive.figure(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from error
        # A closing tag inside the data would end the script.
        data = json.dumps(shown.data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
        head, *rows = shown.table
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        html = (
            f'<div class="interactive" id="{shown.name}" role="group" aria-label="{escape(shown.title)}">'
            f'<script type="application/json">{data}</script>'
            f'<noscript><div class="wide"><table class="table"><thead><tr>{cells}</tr></thead>'
            f"<tbody>{body}</tbody></table></div></noscript></div>"
        )
        return [nodes.raw("", html, format="html")]


def setup(app: Sphinx) -> dict:
    app.add_directive("interactive", Interactive)
    app.add_js_file("interactive.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
