"""Sphinx extension: the pages load MathJax from the book itself, so that they read without a network.

What only developers of the theme need is left out: maps of its scripts, and sources of its translations.

The files come from the PyPI package sphinx-mathjax-offline, which is used as a container only: its own extension
copies every variant of MathJax, 24 MB, where the pages need one script and its fonts.
"""

from importlib.resources import as_file, files
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset

SCRIPT = "tex-mml-chtml.js"
FONTS = "output/chtml/fonts/woff-v2"
# Files of the theme that no page loads: 4 MB.
UNUSED = ("*.js.map", "*.css.map", "*.po")


def copy_mathjax(app: Sphinx, failure: Exception | None) -> None:
    """Copy MathJax's script and fonts beside the pages, in the layout by which the script finds its fonts."""
    if failure is not None or app.builder.format != "html":
        return
    with as_file(files("sphinx-mathjax-offline") / "static" / "mathjax") as source:
        target = Path(app.outdir, "_static", "mathjax")
        copy_asset(source / SCRIPT, target)
        copy_asset(source / FONTS, target / FONTS)


def leave_out(app: Sphinx, failure: Exception | None) -> None:
    """Remove what no page loads."""
    if failure is not None or app.builder.format != "html":
        return
    for pattern in UNUSED:
        for path in Path(app.outdir, "_static").rglob(pattern):
            path.unlink()


def setup(app: Sphinx) -> dict:
    app.config.mathjax_path = f"mathjax/{SCRIPT}"
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", leave_out)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
