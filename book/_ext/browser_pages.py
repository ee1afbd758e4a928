"""Sphinx extension: the directive ``in-browser`` puts a surrogate on a page that runs there, from `studies.in_browser`.

The model stands in the page, and onnxruntime-web beside it, so that the page works from a file. Where that could not be
fetched the page says so; there, and without scripts, a picture stands.
"""

import json
import os
import shutil
from html import escape
from importlib.resources import as_file, files
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from studies import in_browser

FOLDER = Path("_static", "onnxruntime-web")
# The licence of ONNX Runtime, and of what it is made of; the package for browsers brings neither.
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
MISSING = (
    "The runtime, onnxruntime-web, could not be fetched when this book was built, so nothing runs here. "
    "In a clone with a network connection, make book fetches it and builds this page anew."
)
WITHOUT = (
    "Nothing runs here without JavaScript, nor on paper. The picture shows the surrogate in the middle of its box."
)


def element(runs: in_browser.Runs, there: bool) -> str:
    """Return the HTML of a surrogate that runs on the page.

    Args:
        runs: The surrogate.
        there: Whether the runtime is.
    """
    # A closing tag inside the data would end the script.
    data = json.dumps(runs.data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    note, state = ("", "") if there else (MISSING, ' data-state="missing"')
    return (
        f'<div class="interactive" id="runs-{runs.name}" data-surrogate="{runs.name}"{state} role="group" '
        f'aria-label="{escape(runs.title)}"><script type="application/json">{data}</script>'
        f'<div class="still">{in_browser.still(runs)}<p class="note">{note}</p>'
        f"<noscript><p>{WITHOUT}</p></noscript></div></div>"
    )


def scripts(runtime: str, up: Path) -> str:
    """Return what loads the runtime and what runs the surrogates, after all else on the page.

    Args:
        runtime: Name of its file.
        up: Relative path of the folder of the whole book.
    """
    sources = up / FOLDER / runtime, up / "_static" / "in_browser.js"
    return "".join(f'<script defer src="{source.as_posix()}"></script>' for source in sources)


class InBrowser(Directive):
    """``{in-browser} NAME``: the surrogate of this name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        try:
            runs = in_browser.figure(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from error
        script = in_browser.runtime()
        html = element(runs, script is not None)
        env.note_dependency(in_browser.__file__)
        if script is None:
            env.note_reread()
        elif not env.temp_data.get("in_browser"):  # once on a page
            env.temp_data["in_browser"] = True
            html += scripts(script.name, Path(os.path.relpath(".", Path(env.docname).parent)))
        return [nodes.raw("", html, format="html")]


def copy(app: Sphinx, failure: Exception | None) -> None:
    """Lay the runtime and its licences beside the pages."""
    script = in_browser.runtime()
    if failure is not None or app.builder.format != "html" or script is None:
        return
    target = Path(app.outdir, FOLDER)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(script, target / script.name)
    for name in LICENCES:
        with as_file(files("onnxruntime") / name) as source:
            shutil.copyfile(source, target / name)


def setup(app: Sphinx) -> dict:
    app.add_directive("in-browser", InBrowser)
    app.connect("build-finished", copy)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
