"""Sphinx extension: the directive ``interactive`` puts a figure with controls on a page, from `studies.interactive`.

The data stand in the page as JSON and are drawn by interactive.js, so that the page works from a file. Without scripts
a table says the same. The directive names it and captions it, as that of any figure does.
"""

import json
from html import escape

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from studies import interactive


class Interactive(SphinxDirective):
    """``{interactive} NAME``: the interactive figure of this name, with an id and a caption."""

    required_arguments = 1
    option_spec = {"name": directives.unchanged_required}
    has_content = True

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
        words, messages = self.state.inline_text("\n".join(self.content), self.lineno)
        figure = nodes.figure("", nodes.raw("", html, format="html"), nodes.caption("", "", *words))
        self.add_name(figure)
        return [figure, *messages]


def setup(app: Sphinx) -> dict:
    app.add_directive("interactive", Interactive)
    app.add_js_file("interactive.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
